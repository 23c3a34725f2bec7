"""How a command ends: what shells, schedulers and studies read from it."""

DONE = 0
FAILED = 1  # nothing, or nothing more, was done; stderr says why
WRONG_USAGE = 2  # of arguments; argparse's own code
DONE_IN_PART = 3  # some images were skipped, or something that was asked for is lacking
INTERRUPTED = 75  # after a checkpoint was written; sysexits.h EX_TEMPFAIL, "try again"
CTRL_C = 130  # interrupted where there is nothing to resume: 128 + SIGINT, as shells have it

MEANINGS = {
    DONE: "done",
    FAILED: "error",
    WRONG_USAGE: "wrong usage",
    DONE_IN_PART: "in part",
    INTERRUPTED: "can be resumed",
    CTRL_C: "interrupted",
}
