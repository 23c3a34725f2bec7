"""The script of a SLURM array: whatever folders are called, it runs what it says and nothing else."""

import subprocess
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from vertebra_kp.core.errors import UserError
from vertebra_kp.experiments import launch
from vertebra_kp.experiments.slurm import write_array
from vertebra_kp.experiments.study import StudyFile

RUN = SimpleNamespace(variant="base", seed=1)


def study_in(folder):
    (folder / "runs").mkdir(parents=True)
    return SimpleNamespace(folder=folder, run_folders=folder / "runs")


@pytest.mark.parametrize("name", ["a b; touch hurt", "$(touch hurt)", 'it\'s "quoted" `touch hurt`', "50 %j"])
def test_a_folder_of_any_name_is_one_word(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "PROGRAM", ["printf", r"%s\n"])
    script = write_array(study_in(tmp_path / name), [RUN], jobs=1, options=[])
    done = subprocess.run(
        ["bash", script], env={"SLURM_ARRAY_TASK_ID": "0", "PATH": "/usr/bin:/bin"}, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == ["ablate", str(tmp_path / name), "--run", "base", "1"]
    assert not (tmp_path / "hurt").exists()
    directives = [line for line in script.read_text().splitlines() if line.startswith("#SBATCH")]
    assert len(directives) == 4
    assert ("%%j" in directives[2]) == ("%j" in name)  # SLURM would put the job's number there


@pytest.mark.parametrize("part", ["folder", "option"])
def test_a_line_break_is_refused(tmp_path, part):
    bad = "x\ntouch hurt"
    study = study_in(tmp_path / (bad if part == "folder" else "x"))
    with pytest.raises(UserError, match="control character"):
        write_array(study, [RUN], jobs=1, options=[f"--comment={bad}"] if part == "option" else [])
    assert list(tmp_path.rglob("*.sbatch")) == []


@pytest.mark.parametrize("name", ["../../../x", "/x", "a/b", "a b", "a\nb", "", "..", "-x", "x" * 300])
@pytest.mark.parametrize("where", ["variants", "measured"])
def test_a_variant_whose_name_is_no_folder_name_is_refused(where, name):
    values = {"base": "quickstart", "seeds": [1], "baseline": "a", "variants": {"a": []}, "measured": {}}
    values[where] = values[where] | {name: []}
    with pytest.raises(ValidationError, match=where):
        StudyFile.model_validate(values, strict=False)
