"""The `vaelab` command hands over to the one that is named."""

import pytest

from vaelab.commands import cli, main


@pytest.fixture
def vaelab(monkeypatch, capsys):
    """(*arguments) -> what `vaelab` with these prints."""
    monkeypatch.setenv(main.CHOSEN, "")

    def run(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["/somewhere/bin/vaelab", *arguments])
        main.main()
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_lists_the_commands(vaelab, arguments):
    said = vaelab(*arguments)
    assert all(f"  {name} " in said for name in main.COMMANDS)


def test_an_unknown_command_exits_2(vaelab, capsys):
    with pytest.raises(SystemExit) as exit_:
        vaelab("trian")
    assert exit_.value.code == 2
    assert "error: trian: there is no such command" in capsys.readouterr().err


@pytest.mark.parametrize("name", main.COMMANDS)
def test_help_names_the_command_as_it_was_started(vaelab, name):
    said = vaelab(name, "--help")
    assert f"vaelab {name} " in said
    assert f"python {name}.py" not in said
    assert cli.program_words("report") == ["vaelab", "report"]


def test_a_process_beside_the_first_runs_the_same_command(vaelab, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv(main.CHOSEN, "export")
    assert "vaelab export " in vaelab("--help")
