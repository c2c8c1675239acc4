"""The commands of `digitd`; thin. Nothing here imports TensorFlow until a command needs the model."""

from __future__ import annotations

import argparse
import logging
import os
import pwd
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from io import TextIOWrapper
from pathlib import Path

from daemon import __version__
from daemon.config import ENVIRONMENT_CONFIG, WRITTEN, ConfigError, Settings, load_settings
from daemon.index.schema import NoIndex
from daemon.processes import become_owner
from daemon.systemd import log_handler

DONE, FAILED, WRONG_USAGE = 0, 1, 2
ALL = 1 << 62  # answers: more than there can be, and no more than SQLite can count


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong usage or configuration.

    """
    options = _parser().parse_args(arguments)
    os.environ["PYTHONSAFEPATH"] = "1"  # no process of ours imports from the current folder, where people may drop a .py
    _log_to_stderr()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for names that no terminal shows, as stderr does by itself
    try:
        return int(options.command(options))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return WRONG_USAGE
    except NoIndex as error:
        print(error, file=sys.stderr)
        return FAILED
    except PermissionError as error:
        if options.command is _run:
            raise  # the daemon's end is told with its traceback
        print(
            f"{error.filename}: expected a user who may use it. Received: {_user()}. Where digitd is a service, "
            "members of the group digitd (from their next login on) may look, drop and correct; all else is for: "
            "sudo -u digitd digitd …",
            file=sys.stderr,
        )
        return FAILED
    except KeyboardInterrupt:
        return FAILED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of our output has gone, as with | head
        return FAILED


def _user() -> str:
    """Who this process runs as."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"user {os.geteuid()}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="digitd",
        description="Watches a folder for images of handwritten digits and writes one JSON answer per image.",
        epilog="digitd COMMAND --help says more of a command. All but init take -c FILE, the configuration.",
    )
    parser.add_argument("--version", action="version", version=f"digitd {__version__}")
    config = argparse.ArgumentParser(add_help=False)
    config.add_argument(
        "-c",
        "--config",
        type=Path,
        default=Path(os.environ.get(ENVIRONMENT_CONFIG, "config.toml")),
        metavar="FILE",
        help="the configuration (default: $DIGITD_CONFIG, else ./config.toml)",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace], int], text: str, configured: bool = True
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text, parents=[config] if configured else [])
        added.set_defaults(command=run)
        return added

    command("run", _run, "watch the inbox until SIGTERM").add_argument(
        "--no-intake",
        dest="intake",
        action="store_false",
        help="answer nothing, do all the rest: where `digitd stream`, or daemons on other hosts, answer",
    )
    command("stream", _stream, "the same on Apache Spark, for more than one machine, until SIGTERM").add_argument(
        "--master", metavar="URL", help="local[N,F] or spark://host:7077 (default: [stream] master; '': spark-submit's)"
    )
    predict = command("predict", _predict, "read images now, without a daemon")
    predict.add_argument("files", nargs="+", type=Path, metavar="FILE")
    predict.add_argument("--json", action="store_true", help="one JSON object a line, as in results/")
    command("retrain", _retrain, "train now, in the foreground, with a progress bar")
    evaluate = command("evaluate", _evaluate, "print loss, accuracy and confusion matrix of a model on the test set")
    evaluate.add_argument("version", nargs="?", metavar="VERSION", help="default: the current one")
    command("models", _models, "list the versions, with date, data, accuracy and verdict").add_argument(
        "--live-at", metavar="TIME", help='say which version was live then, such as "2026-11-23 14:03"'
    )
    promote = command("promote", _promote, "make a version current, or an .h5 of your own; a running daemon swaps to it")
    promote.add_argument("model", metavar="VERSION|FILE.h5")
    command("rollback", _rollback, "make the version before the current one current again")
    correct = command("correct", _correct, "say what an image really shows; the next retraining learns it")
    correct.add_argument("name", metavar="NAME", help="of the result or of the image, such as results/a.png.json or a.png")
    correct.add_argument("label", choices=(*map(str, range(10)), "none"), metavar="DIGIT|none")
    status = command("status", _status, "tell what the running daemon is doing")
    status.add_argument("--json", action="store_true", help="the same, as JSON")
    find = command("find", _find, "list answers and rejections, the newest first")
    _add_filters(find)
    find.add_argument("--limit", type=int, default=100, metavar="N", help="at most so many (default: 100; -1: all)")
    form = find.add_mutually_exclusive_group()
    form.add_argument("--json", dest="form", action="store_const", const="json", default="table", help="an object a line")
    form.add_argument("--csv", dest="form", action="store_const", const="csv", help="for a spreadsheet")
    export = command("export", _export, "write answers and rejections as CSV, the oldest first, for a spreadsheet or pandas")
    _add_filters(export)
    form = export.add_mutually_exclusive_group()
    form.add_argument("--csv", dest="form", action="store_const", const="csv", default="csv", help="the default")
    form.add_argument("--json", dest="form", action="store_const", const="json", help="an object a line")
    index = command("index", _index, "tell whether the index of all answers is whole")
    index.add_argument("--rebuild", action="store_true", help="make it anew from the folders, and show how far it is")
    restore = command("restore", _restore, "fetch an answer and its original, from the folders or the archives")
    restore.add_argument("name", metavar="NAME", help="of the image, or a pattern such as 'batch7/*.png'")
    restore.add_argument("--to", type=Path, default=Path(), metavar="DIR", help="where the copies go (default: here)")
    web = command("web", _web, "serve a page to look and correct, for a browser")
    web.add_argument("--host", default="127.0.0.1", help="where to listen (default: 127.0.0.1; others need --token-file)")
    web.add_argument("--port", type=int, default=9788, help="likewise (default: 9788; 0: any)")
    web.add_argument("--token-file", type=Path, metavar="FILE", help="whose token admits; a new one each time unless given")
    web.add_argument("--url", help="how browsers address it behind a reverse proxy, such as https://digits.example.org")
    web.add_argument("--no-browser", dest="browser", action="store_false", help="print the address and open nothing")
    command("check", _check, "check configuration, folders, model and limits; print what is in force")
    init = command("init", _init, "lay out a new root: configuration, folders, model, data set", configured=False)
    init.add_argument("folder", type=Path, metavar="DIR")
    return parser


def _add_filters(parser: argparse.ArgumentParser) -> None:
    """The options that say which answers are wanted."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="a part of the name, or a pattern such as 'batch7/*.png'")
    parser.add_argument("--digit", type=int, choices=range(10), metavar="DIGIT", help="that was answered")
    parser.add_argument("--day", metavar="DAY", help="'today', 'yesterday' or 2026-11-25, local time")
    parser.add_argument("--since", metavar="TIME", help="a day, or a moment such as '2026-11-25 14:00'")
    parser.add_argument("--until", metavar="TIME", help="likewise; that moment itself is not included")
    parser.add_argument("--outcome", choices=("accepted", "review", "rejected"))
    parser.add_argument("--version", metavar="VERSION", help="of the model, such as v0003")
    parser.add_argument("--confidence", metavar="RANGE", help="such as 0.9.. or ..0.5 or 0.3..0.6")


def _as_owner(options: argparse.Namespace) -> Settings:
    """The configuration. Where root typed the command, and the folders are another user's, it goes on as that user.

    Root would leave files that shut the daemon out, and that user could lead it astray. What reads or writes files of the
    caller's own, `predict` and `restore`, does not.
    """
    settings = load_settings(options.config)
    become_owner(*map(settings.folder, WRITTEN))
    return settings


def _run(options: argparse.Namespace) -> int:
    from daemon.commands.run import run

    return run(_as_owner(options), options.intake)


def _stream(options: argparse.Namespace) -> int:
    from daemon.commands.stream import stream

    settings = _as_owner(options)
    return stream(settings, settings.stream.master if options.master is None else options.master)


def _predict(options: argparse.Namespace) -> int:
    from daemon.commands.predict import predict_files

    return predict_files(load_settings(options.config), options.files, as_json=options.json)


def _retrain(options: argparse.Namespace) -> int:
    from daemon.commands.retrain import retrain_now

    return retrain_now(_as_owner(options))


def _evaluate(options: argparse.Namespace) -> int:
    from daemon.commands.evaluate import print_evaluation

    return print_evaluation(_as_owner(options), options.version)


def _models(options: argparse.Namespace) -> int:
    from daemon.commands.models import print_live_at, print_models

    settings = _as_owner(options)
    return print_live_at(settings, options.live_at) if options.live_at else print_models(settings)


def _promote(options: argparse.Namespace) -> int:
    from daemon.commands.models import promote
    from daemon.models.registry import VERSION

    is_file = not VERSION.fullmatch(options.model) and os.path.isfile(options.model)  # noqa: PTH113 -- that raises nothing
    model = str(Path(options.model).absolute()) if is_file else options.model  # which the current folder may not outlast
    return promote(_as_owner(options), model)


def _rollback(options: argparse.Namespace) -> int:
    from daemon.commands.models import roll_back

    return roll_back(_as_owner(options))


def _correct(options: argparse.Namespace) -> int:
    from daemon.commands.correct import print_correct

    return print_correct(_as_owner(options), options.name, options.label)


def _status(options: argparse.Namespace) -> int:
    from daemon.commands.status import print_status

    return print_status(_as_owner(options), as_json=options.json)


def _find(options: argparse.Namespace) -> int:
    return _print_answers(options, max(-1, min(options.limit, ALL)), newest_first=True)


def _export(options: argparse.Namespace) -> int:
    return _print_answers(options, ALL, newest_first=False)


def _print_answers(options: argparse.Namespace, limit: int, newest_first: bool) -> int:
    from daemon.commands.find import print_answers, wanted

    settings = _as_owner(options)
    try:
        which = wanted(options, datetime.now().astimezone())
    except ValueError as error:
        print(error, file=sys.stderr)
        return WRONG_USAGE
    return print_answers(settings, which, limit, options.form, newest_first)


def _index(options: argparse.Namespace) -> int:
    from daemon.commands.index import print_index, rebuild

    settings = _as_owner(options)
    return rebuild(settings) if options.rebuild else print_index(settings)


def _restore(options: argparse.Namespace) -> int:
    from daemon.commands.restore import restore

    return restore(load_settings(options.config), options.name, options.to)


def _web(options: argparse.Namespace) -> int:
    from daemon.commands.web import show

    settings = _as_owner(options)
    return show(settings, options.host, options.port, options.token_file, options.url, options.browser)


def _check(options: argparse.Namespace) -> int:
    from daemon.commands.check import print_check

    return print_check(_as_owner(options))


def _init(options: argparse.Namespace) -> int:
    from daemon.commands.init import lay_out

    return lay_out(options.folder)


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.INFO, handlers=[log_handler()])
    for name in ("apscheduler", "py4j"):
        logging.getLogger(name).setLevel(logging.WARNING)
