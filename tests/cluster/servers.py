"""Processes that the tests start and end: Spark's master and workers, an S3 server, HDFS. Fetches what these need."""

import hashlib
import os
import secrets
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyspark
import pytest

from lookalike import files

CHECKOUT = Path(__file__).resolve().parents[2]
SITE = Path(pyspark.__file__).parents[1]

HDFS_USER = "shop"  # of no system, so that a file made by another user stands out

JARS = {
    "org/gaul/s3proxy/4.1.0/s3proxy-4.1.0-jar-with-dependencies.jar": (
        "a4d025969aaf796616ed4b1e2491d87d455ce84bb28cb9db086b2e6aaa68b48d"
    ),
    "org/apache/hadoop/hadoop-client-minicluster/3.5.0/hadoop-client-minicluster-3.5.0.jar": (
        "06772d24529e59939915979b3edba204d367750ef7dc5120411f35221dd4818c"
    ),
}
"""Paths in Maven Central, each with the file's sha256."""


def fetched(path: str) -> Path:
    """A jar of JARS, kept below .cache. Skips the test where Maven Central can't be reached."""
    jar = CHECKOUT / ".cache" / "test-jars" / Path(path).name
    if not jar.exists():
        jar.parent.mkdir(parents=True, exist_ok=True)
        part = jar.with_suffix(f".{os.getpid()}.part")
        try:
            with urllib.request.urlopen(f"https://repo1.maven.org/maven2/{path}", timeout=60) as source:
                part.write_bytes(source.read())
        except urllib.error.HTTPError:
            raise
        except OSError as error:
            pytest.skip(f"{jar.name} could not be fetched from Maven Central: {error}")
        part.replace(jar)
    assert hashlib.sha256(jar.read_bytes()).hexdigest() == JARS[path], f"{jar} is not what it was: delete it"
    return jar


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def java() -> str:
    home = os.environ.get("JAVA_HOME")
    return f"{home}/bin/java" if home else "java"


@contextmanager
def process(command: list[str], log: Path, environment: Mapping[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("ab") as file:
        started = subprocess.Popen(command, env=dict(environment), stdout=file, stderr=file, cwd=log.parent)
    try:
        yield started
    finally:
        started.terminate()
        started.wait(timeout=30)


def wait_for(port: int, log: Path) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise TimeoutError(f"nothing listens on port {port}:\n{log.read_text()[-3000:]}")


@contextmanager
def spark_cluster(folder: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """URL of a master with two workers, each with one core and one GPU, which a stand-in of nvidia-smi claims."""
    nvidia_smi = folder / "bin" / "nvidia-smi"
    nvidia_smi.parent.mkdir()
    nvidia_smi.write_text("#!/bin/sh\necho 0\n")
    nvidia_smi.chmod(0o755)
    port = free_port()
    url = f"spark://127.0.0.1:{port}"
    daemon = {
        **environment,
        "SPARK_HOME": str(SITE / "pyspark"),
        "SPARK_DAEMON_MEMORY": "256m",
        "PATH": f"{nvidia_smi.parent}:{environment['PATH']}",
        "SPARK_WORKER_OPTS": "-Dspark.worker.resource.gpu.amount=1 "
        f"'-Dspark.worker.resource.gpu.discoveryScript={CHECKOUT / 'conf' / 'find_gpus.sh'}'",
    }

    def command(main: str, *options: str) -> list[str]:
        start = [str(SITE / "pyspark" / "bin" / "spark-class"), f"org.apache.spark.deploy.{main}"]
        return [*start, *options, "--host", "127.0.0.1", "--webui-port", "0"]

    with ExitStack() as running:
        log = folder / "master.log"
        running.enter_context(process(command("master.Master", "--port", str(port)), log, daemon))
        wait_for(port, log)
        for name in ("one", "two"):
            options = ["--cores", "1", "--memory", "3g", "--work-dir", str(folder / name), url]
            running.enter_context(process(command("worker.Worker", *options), folder / f"{name}.log", daemon))
        yield url


def executors(folder: Path) -> list[int]:
    """Process ids of the executors of the cluster in `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if folder in (process / "cwd").resolve(strict=True).parents and b"CoarseGrainedExecutorBackend" in (
                (process / "cmdline").read_bytes()
            ):
                found.append(int(process.name))
        except OSError:  # it ended, or is another user's
            continue
    return found


@dataclass
class S3Server:
    """S3Proxy over a folder, with keys of its own. A bucket is a folder in it."""

    folder: Path
    port: int = field(default_factory=free_port)
    key_id: str = field(default_factory=lambda: f"id-{secrets.token_hex(8)}")
    secret: str = field(default_factory=lambda: f"secret-{secrets.token_hex(16)}")

    @property
    def environment(self) -> dict[str, str]:
        """What a user sets to reach it."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": self.key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret,
        }

    def bucket(self, name: str) -> str:
        (self.folder / "store" / name).mkdir(parents=True)
        return f"s3a://{name}"

    def gone_for(self, seconds: float) -> None:
        """Kill the server, and start it again after a while."""
        self._process.kill()
        self._process.wait()
        time.sleep(seconds)
        self._start()

    @contextmanager
    def running(self) -> Iterator[None]:
        self._start()
        try:
            yield
        finally:
            self._process.kill()
            self._process.wait()

    def _start(self) -> None:
        (self.folder / "store").mkdir(exist_ok=True)
        settings = self.folder / "s3proxy.properties"
        settings.write_text(
            f"""s3proxy.authorization=aws-v2-or-v4
s3proxy.endpoint=http://127.0.0.1:{self.port}
s3proxy.identity={self.key_id}
s3proxy.credential={self.secret}
jclouds.provider=filesystem
jclouds.filesystem.basedir={self.folder / "store"}
"""
        )
        jar = fetched(next(path for path in JARS if "s3proxy" in path))
        log = self.folder / "s3proxy.log"
        command = [java(), "-Xmx512m", "-jar", str(jar), "--properties", str(settings)]
        with log.open("ab") as file:
            self._process = subprocess.Popen(command, stdout=file, stderr=file)
        wait_for(self.port, log)


@contextmanager
def hdfs(folder: Path) -> Iterator[str]:
    """URI of an HDFS with a NameNode and a DataNode, each a process, with permissions checked."""
    jar = fetched(next(path for path in JARS if "minicluster" in path))
    port = free_port()
    uri = f"hdfs://127.0.0.1:{port}"
    settings = {
        "fs.defaultFS": uri,
        "dfs.replication": 1,
        "dfs.namenode.name.dir": folder / "name",
        "dfs.namenode.http-address": "127.0.0.1:0",
        "dfs.datanode.data.dir": folder / "data",
        "dfs.datanode.address": "127.0.0.1:0",
        "dfs.datanode.http.address": "127.0.0.1:0",
        "dfs.datanode.ipc.address": "127.0.0.1:0",
        "dfs.namenode.safemode.threshold-pct": 0,
    }
    conf = folder / "conf"
    conf.mkdir()
    properties = "".join(f"<property><name>{k}</name><value>{v}</value></property>" for k, v in settings.items())
    (conf / "core-site.xml").write_text(f"<configuration>{properties}</configuration>")
    shutil.copy2(conf / "core-site.xml", conf / "hdfs-site.xml")
    command = [java(), "-Xmx256m", "-cp", f"{conf}:{jar}:{SITE / 'pyspark' / 'jars'}/*"]
    server = "org.apache.hadoop.hdfs.server"
    name_node = [*command, f"{server}.namenode.NameNode"]
    user = os.environ | {"HADOOP_USER_NAME": HDFS_USER}
    log = folder / "namenode.log"
    subprocess.run([*name_node, "-format", "-nonInteractive"], env=user, check=True, capture_output=True, cwd=folder)
    with process(name_node, log, user):
        wait_for(port, log)
        with process([*command, f"{server}.datanode.DataNode"], folder / "datanode.log", user):
            wait_for_data_node(uri)
            yield uri


def wait_for_data_node(uri: str) -> None:
    fs, probe = files.filesystem(f"{uri}/probe")
    deadline = time.monotonic() + 300
    while True:
        try:
            fs.pipe_file(probe, b"x")
            break
        except (OSError, RuntimeError):  # the client has no class of its own for this
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
    fs.rm_file(probe)
