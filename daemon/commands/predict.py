"""`digitd predict`: the same images, model and decision as the daemon's, without a daemon."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from daemon.answering.choice import answer
from daemon.answering.publish import prediction_json, rejection_json, to_line
from daemon.config import Settings
from daemon.drops import Drop, ImageFacts, Predictions, Rejection, Rows
from daemon.files import printable
from daemon.models.registry import Registry, RegistryError
from daemon.reading.content import InvalidImage
from daemon.reading.decode import load_image
from daemon.reading.readings import Readings


def predict_files(settings: Settings, files: list[Path], as_json: bool) -> int:
    """Read each file and print its answer.

    Returns:
        0, or 1 where a file got no prediction or there is no model.

    """
    from daemon.models.live import load
    from daemon.models.network import ModelError

    try:
        model = load(Registry(settings.folder("models")).current())
    except (RegistryError, ModelError) as error:
        print(error, file=sys.stderr)
        return 1
    rejected = 0
    for file in files:
        drop = Drop(str(file), time.time())
        name = printable(drop.name)
        try:
            image = load_image(os.path.realpath(file), settings.inbox.max_bytes, settings.inbox.max_pixels)
        except (InvalidImage, OSError, MemoryError) as error:
            rejected += 1
            if not isinstance(error, InvalidImage):
                print(f"{name}: {getattr(error, 'strerror', None) or 'too little memory to read it'}", file=sys.stderr)
            elif as_json:
                rejection = Rejection(drop, error.reason, error.detail, error.hint, error.sha256)
                sys.stdout.buffer.write(to_line(rejection_json(rejection, time.time())))
            else:
                print(f"{name}: {error.reason}: {error.detail} {error.hint}", file=sys.stderr)
            continue
        answers = answer(model, Readings.of([image.readings]))
        probabilities, (reason,) = answers.probabilities, answers.review_reasons(settings.inference)
        facts = ImageFacts(*image[1:])
        identity = answers.identity
        batch = Predictions(
            Rows([drop]),
            Rows([facts]),
            probabilities,
            [reason],
            identity.version,
            identity.sha256,
            drop.received,
            time.time(),
        )
        if as_json:
            sys.stdout.buffer.write(to_line(next(prediction_json(batch))))
        else:
            why = f", to be reviewed: {reason}" if reason else ""
            print(f"{name}: {probabilities.argmax()} ({probabilities.max():.2%}{why})")
    return 1 if rejected else 0
