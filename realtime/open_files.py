"""Each websocket is an open file, and systems allow few at first."""

import logging
import resource

logger = logging.getLogger(__name__)

OTHERS = 200  # files that are no websockets: connections to services, HTTP requests, modules


def allow_sockets(wanted: int) -> int:
    """Raises this process's limit of open files as far as the system lets us; how many sockets fit (0: no limit).

    `wanted`: 0 is as many as possible. Where fewer fit than wanted, the log says so, and what to do.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    needed = wanted + OTHERS if wanted else hard
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    fit = max(soft, allowed) - OTHERS
    if fit < wanted:
        logger.warning(
            "Only %d of MAX_SOCKETS=%d websockets fit: the system allows %d open files. Raise its hard limit "
            "(ulimit -Hn, or LimitNOFILE of systemd), or lower MAX_SOCKETS.",
            fit,
            wanted,
            hard,
        )
    return min(fit, wanted) if wanted else fit
