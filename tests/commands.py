"""Commands as a user types them, and what they answer."""

from typer.testing import CliRunner

from captum_blackbox.cli import app


class Command:
    """A command under its name."""

    def __init__(self, name):
        self.name = name

    def run(self, *arguments):
        words = [self.name, *map(str, arguments)]
        return CliRunner().invoke(app, words, catch_exceptions=False)

    def done(self, *arguments):
        """Return the result of a command that succeeds."""
        result = self.run(*arguments)
        assert result.exit_code == 0, result.stderr
        return result

    def failure(self, *arguments):
        """Return the only message of a command that fails."""
        result = self.run(*arguments)
        assert result.exit_code == 1
        errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        return errors[0].removeprefix("error: ")

    def misuse(self, *arguments):
        """Return what is said of a command that was typed wrongly."""
        result = self.run(*arguments)
        assert result.exit_code == 2
        # The frame around the message depends on the terminal.
        return " ".join(result.stderr.replace("│", " ").split())
