"""The `forwarder` command: one module per group of commands, loaded when it is called.

`forwarder --help` must stay quick, so nothing but click is imported here.
"""

import gc
import importlib

import click

# command -> (module below forwarder.cli, what `forwarder --help` says of it)
_COMMANDS = {
    "check": ("check", "Check who sent a message on disk: SPF, DKIM, ARC, DMARC."),
    "config": ("config", "Check the configuration, or show what is in effect."),
    "dns": ("dns", "Print the DNS records to publish, or compare them with live DNS."),
    "init": ("init", "Write a working configuration, rules, secrets and keys for a domain."),
    "keys": ("keys", "Make, list and rotate the DKIM keys."),
    "queue": ("queue", "List the messages that wait, and decide about them."),
    "rules": ("rules", "Check, show, explain, test or reload the rules."),
    "serve": ("serve", "Run the gateway in the foreground."),
    "srs": ("srs", "Encode or decode an SRS address."),
}


class _Lazy(click.Group):
    """A group whose commands live in modules of their own, each with a command named `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        gc.disable()  # what is loaded stays: to look through it again and again takes a tenth of the time
        try:
            command: click.Command = importlib.import_module(f"forwarder.cli.{_COMMANDS[cmd_name][0]}").command
        finally:
            gc.enable()
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without loading their modules."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in sorted(_COMMANDS.items())])


@click.command(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="forwarder")
def main() -> None:
    """The MX of your domains: checks, rewrites and hands mail on to the inbox where you read it.

    Exit status: 0 fine, 1 a problem was found, 2 wrong use.
    """
