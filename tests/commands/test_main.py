"""Tests of the `vaelab` command, which runs the command that its first argument names."""

import pytest

from vaelab.commands import command_lines, main


@pytest.fixture
def run_vaelab(monkeypatch, capsys):
    """(*arguments) -> what `vaelab` prints to stdout, run in this process."""
    monkeypatch.setenv(main.CHOSEN, "")

    def run_and_capture(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["/somewhere/bin/vaelab", *arguments])
        main.main()
        return capsys.readouterr().out

    return run_and_capture


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_vaelab_help_lists_all_commands(run_vaelab, arguments):
    said = run_vaelab(*arguments)
    assert all(f"  {name} " in said for name in main.COMMANDS)


def test_unknown_command_exits_2(run_vaelab, capsys):
    with pytest.raises(SystemExit) as exit_:
        run_vaelab("trian")
    assert exit_.value.code == 2
    assert "error: trian: there is no such command" in capsys.readouterr().err


@pytest.mark.parametrize("name", main.COMMANDS)
def test_help_names_vaelab_instead_of_python_script(run_vaelab, name):
    said = run_vaelab(name, "--help")
    assert f"vaelab {name} " in said
    assert f"python {name}.py" not in said
    assert command_lines.program_words("report") == ["vaelab", "report"]


def test_ddp_process_takes_command_from_environment(run_vaelab, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv(main.CHOSEN, "export")
    assert "vaelab export " in run_vaelab("--help")


def test_script_of_another_folder_is_shown_with_its_path(tmp_path, monkeypatch):
    monkeypatch.setattr(command_lines, "current_command", ["train"])
    monkeypatch.setattr("sys.argv", [str(tmp_path / "train.py")])
    monkeypatch.chdir(tmp_path)
    assert command_lines.program_words() == ["python", "train.py"]
    monkeypatch.chdir(tmp_path.parent)
    assert command_lines.program_words() == ["python", str(tmp_path / "train.py")]
    assert command_lines.program_words("evaluate") == ["python", str(tmp_path / "evaluate.py")]
