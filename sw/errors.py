"""The two ways a command of ours can end badly.

A :class:`UserError` is a wrong input: one sentence that names the file, layer or option at fault
and the mend; the command line turns it into exit status 2. A :class:`WorkFailed` is honest work
that did not succeed (a mismatch, a design that does not fit, timing not met): exit status 1.

In a message, a word in back-ticks is an argument of a Python function, such as ```target_fps``` or
```target_fps=5000```; the command line prints the option of that name instead.
"""

__all__ = ["UserError", "WorkFailed", "XnorflowError"]


class XnorflowError(Exception):
    """Base of every error that xnorflow raises on purpose."""


class UserError(XnorflowError):
    """A wrong input; the message is one sentence that names the culprit and the mend."""


class WorkFailed(XnorflowError):
    """The work was done honestly and failed; the message says by how much and what would help."""
