"""Whether a file in the inbox is whole: nobody has it open for writing, as far as the kernel can tell."""

from __future__ import annotations

import fcntl
import os

from daemon.folders import Folder


def when_dropped(inbox: Folder, name: str) -> float | None:
    """When a file was dropped, in seconds since the epoch; None while somebody has it open for writing.

    The kernel tells it of files that this user owns, by refusing a lease. Of others nothing is known: one that is caught
    half-written is put back later.

    Raises:
        FileNotFoundError: it was taken away, or a link is now where its folder was.
        OSError: its folder may not be entered.

    """
    try:
        descriptor = inbox.open(name, os.O_RDONLY | os.O_NONBLOCK)
    except NotADirectoryError as error:
        raise FileNotFoundError(error.errno, error.strerror, name) from error
    except FileNotFoundError:
        raise
    except BlockingIOError:
        return None  # a lease says so, such as Samba's; this look has asked its holder to give it up
    except OSError:
        return inbox.status(name).st_ctime  # unreadable, or no regular file: to be rejected with a reason
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)  # closing gives it back
    except BlockingIOError:
        return None
    except OSError:
        pass  # not our file and no CAP_LEASE, or no leases on this file system
    finally:
        received = os.fstat(descriptor).st_ctime
        os.close(descriptor)
    return received
