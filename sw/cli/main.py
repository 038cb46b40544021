"""The ``xnorflow`` command: its sub-commands, and how every one of them may end.

Exit status: 0 done, 1 the work failed honestly, 2 wrong input; never a traceback for either.
"""

from __future__ import annotations

import signal
import sys
from contextlib import suppress

import click

from xnorflow import __version__
from xnorflow.cli.boards import boards_command
from xnorflow.cli.build import build_command
from xnorflow.cli.common import in_options
from xnorflow.cli.compare import compare_command
from xnorflow.cli.demo import demo_command
from xnorflow.cli.emulate import emulate_command
from xnorflow.cli.explore import explore_command
from xnorflow.cli.faults import faults_command
from xnorflow.cli.inspect import inspect_command
from xnorflow.cli.predict import predict_command
from xnorflow.cli.run import run_command
from xnorflow.cli.simulate import simulate_command
from xnorflow.cli.train import train_command
from xnorflow.errors import UserError, WorkFailed

__all__ = ["cli", "main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="xnorflow")
def cli() -> None:
    """Turn a trained binarized neural network into a verified FPGA accelerator.

    MODEL is a QONNX file; a data file is an .npz with x and, if there are labels, y. Every command
    takes --json FILE and then also writes its result as one JSON object.
    """


for command in (
    demo_command,
    inspect_command,
    predict_command,
    simulate_command,
    build_command,
    explore_command,
    compare_command,
    faults_command,
    emulate_command,
    run_command,
    boards_command,
    train_command,
):
    cli.add_command(command)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its status.

    Parameters
    ----------
    arguments : list of str, optional
        What stands behind the command's name; the process's own by default.
    """
    sys.exit(_run(arguments))


def _run(arguments: list[str] | None) -> int:
    with suppress(ValueError):  # not the main thread: somebody else takes care of signals
        # Tools that are running end, and unfinished folders go, as with Ctrl-C.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        # Outside of click's standalone mode, the status of --help and --version is returned.
        status = cli.main(arguments, prog_name="xnorflow", standalone_mode=False)
        return status if isinstance(status, int) else 0
    except click.ClickException as error:
        error.show()
        return 2
    except UserError as error:
        click.echo(f"Error: {in_options(str(error), cli.commands.values())}", err=True)
        return 2
    except WorkFailed as error:
        click.echo(f"Failed: {in_options(str(error), cli.commands.values())}", err=True)
        return 1
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted", err=True)
        return 130
    except BrokenPipeError:
        # The reader of our output has gone; there is nobody left to tell.
        sys.stderr.close()
        return 1
