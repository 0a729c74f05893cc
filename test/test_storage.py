"""Bags and data sets by URL: object storage gives and takes the same bytes as a disk, and only what is asked for."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractBufferedFile
from rosbags.rosbag2 import StoragePlugin
from test_dataset_build import SETTINGS, digest, drive, write, write_with_rosbags
from typer.testing import CliRunner
from upath import UPath
from upath.implementations.cloud import CloudPath
from upath.registry import register_implementation

from dfd_ros.cli import app
from dfd_ros.data.bags import BagReader
from dfd_ros.data.built import read_bags, read_lines
from dfd_ros.data.open import open_dataset
from dfd_ros.datasets import build as building
from dfd_ros.datasets import files
from dfd_ros.datasets.files import StorageError
from dfd_ros.errors import InputError
from dfd_ros.storage import is_remote, open_place


class Bucket(MemoryFileSystem):
    """Object storage as it is: an object is put in one go, and nothing is renamed, appended to or locked."""

    protocol = "bucket"
    store, pseudo_dirs = {}, [""]  # its own
    fetched, put, fails_at = 0, 0, -1  # bytes read; objects written, and which of them cannot be

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).replace("bucket://", "memory://", 1))

    def _open(self, path, mode="rb", block_size=None, **options):
        if mode != "rb":
            raise OSError("objects are put, not opened to be written")
        return Fetched(self, path, mode, block_size=1 << 16, **options)

    def pipe_file(self, path, value, **options):
        if type(self).put == type(self).fails_at:
            raise OSError("503 Slow Down")
        type(self).put += 1
        MemoryFileSystem._open(self, path, "wb", data=value).close()

    def put_file(self, lpath, rpath, **options):
        self.pipe_file(rpath, Path(lpath).read_bytes())

    def cat_file(self, path, start=None, end=None, **options):
        content = self.store[self._strip_protocol(path)].getvalue()[start:end]
        type(self).fetched += len(content)
        return content

    def mv(self, *arguments, **options):
        raise OSError("objects are not renamed")


class Fetched(AbstractBufferedFile):
    def _fetch_range(self, start, end):
        return self.fs.cat_file(self.path, start, end)


fsspec.register_implementation("bucket", Bucket)
register_implementation("bucket", CloudPath)


@pytest.fixture
def bucket():
    Bucket.store.clear()
    Bucket.pseudo_dirs[:] = [""]
    Bucket.fetched, Bucket.put, Bucket.fails_at = 0, 0, -1
    yield "bucket://fleet"
    Bucket.store.clear()


def upload(folder, url):
    for path in folder.rglob("*"):
        if path.is_file():
            fsspec.filesystem(url.partition(":")[0]).pipe_file(f"{url}/{path.relative_to(folder)}", path.read_bytes())


def remote_digest(url):
    """As `digest`, of what lies under a URL."""
    place = UPath(url)
    root = place.path.rstrip("/") + "/"
    return {
        path.removeprefix(root): hashlib.sha256(place.fs.cat_file(path)).hexdigest()
        for path in place.fs.find(place.path)
    }


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return write(tmp_path_factory.mktemp("bags") / "drive", drive())


@pytest.fixture(scope="module")
def built(bag, tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "set"
    assert not building.build([bag], out, SETTINGS).failed
    return out


@pytest.fixture(scope="module")
def expected(built):
    """What the data set's bytes are on a disk, less the lock."""
    return {path: content for path, content in digest(built).items() if path != "work/lock"}


def test_a_path_stays_a_path_and_a_file_url_is_one(tmp_path):
    assert open_place(str(tmp_path)) == open_place(tmp_path) == open_place(f"file://{tmp_path}") == tmp_path
    assert open_place("file:///a%20b") == Path("/a b")
    assert not is_remote(tmp_path)
    assert is_remote(open_place("memory://a/b"))
    for url in ("nokind://a", "no-such-kind://a"):
        with pytest.raises(InputError, match=f"{url}: cannot be opened"):
            open_place(url)


def test_without_the_library_a_url_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "upath", None)
    with pytest.raises(InputError, match=r"pip install 'dfd_ros\[fleet\]'"):
        open_place("memory://a")


@pytest.mark.parametrize("kind", ["memory", "bucket"])
def test_from_url_to_url_the_bytes_are_those_of_a_disk(bag, built, expected, bucket, kind):
    start = f"{kind}://fleet"
    upload(bag, f"{start}/drive")
    report = building.build([open_place(f"{start}/drive")], open_place(f"{start}/set"), SETTINGS)
    assert not report.failed
    assert remote_digest(f"{start}/set") == expected
    samples = open_dataset(f"built:{start}/set")
    assert open_dataset(f"{start}/set").names == samples.names == open_dataset(built).names
    for name in ("shallow", "deep", "depth", "weight"):
        np.testing.assert_array_equal(getattr(samples[1], name), getattr(open_dataset(built)[1], name))
    before = remote_digest(f"{start}/set")
    building.build([open_place(f"{start}/drive")], open_place(f"{start}/set"), SETTINGS)
    assert remote_digest(f"{start}/set") == before


def test_from_a_url_onto_a_disk_and_from_a_disk_to_a_url(bag, expected, bucket, tmp_path):
    upload(bag, f"{bucket}/drive")
    building.build([open_place(f"{bucket}/drive")], open_place(f"file://{tmp_path}/set"), SETTINGS)
    assert {path: content for path, content in digest(tmp_path / "set").items() if path != "work/lock"} == expected
    building.build([bag], open_place(f"{bucket}/set"), SETTINGS)
    assert remote_digest(f"{bucket}/set") == expected


def test_a_database_is_read_by_url(expected, bucket, tmp_path):
    ordered = sorted(drive(), key=lambda m: m[3])
    upload(write_with_rosbags(tmp_path / "drive", ordered, StoragePlugin.SQLITE3), f"{bucket}/drive")
    building.build([open_place(f"{bucket}/drive")], open_place(f"{bucket}/set"), SETTINGS)
    found = remote_digest(f"{bucket}/set")
    assert {k: v for k, v in found.items() if k[:5] != "work/"} == {
        k: v for k, v in expected.items() if k[:5] != "work/"
    }


def test_only_the_part_that_is_asked_for_is_fetched(bucket, tmp_path):
    bag = write(tmp_path / "drive", drive(120))  # 12 s, a chunk a second
    upload(bag, f"{bucket}/drive")
    size = sum(path.stat().st_size for path in bag.iterdir())
    with BagReader(f"{bucket}/drive") as opened:
        assert Bucket.fetched < 0.1 * size
        middle = opened.start_time_ns + 5_000_000_000
        messages = list(opened.messages(["/cam/image_raw"], middle, middle + 200_000_000))
    assert len(messages) == 2
    assert Bucket.fetched < 0.35 * size
    with BagReader(bag) as local:
        assert [m.data for m in local.messages(["/cam/image_raw"], middle, middle + 200_000_000)] == [
            m.data for m in messages
        ]


@pytest.mark.parametrize("failing", [0, 1, 2, 9, 16])
def test_storage_that_fails_stops_it_and_it_goes_on_to_the_same_bytes(bag, expected, bucket, failing):
    Bucket.fails_at = failing
    with pytest.raises(StorageError, match=r"503 Slow Down.*the same command again goes on"):
        building.build([bag], open_place(f"{bucket}/set"), SETTINGS)
    Bucket.fails_at = -1
    building.build([bag], open_place(f"{bucket}/set"), SETTINGS)
    assert remote_digest(f"{bucket}/set") == expected
    # Each object is put once, those of the pair in work and the ledgers again.
    assert Bucket.put <= len(expected) + 4 + len(read_lines(open_place(f"{bucket}/set") / "index.jsonl"))


def test_content_that_breaks_off_is_never_put(bucket):
    place = open_place(f"{bucket}/index.jsonl")

    def break_off():
        with files.whole_file(place) as file:
            file.write(b"half of ")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    assert not place.exists()


def test_of_a_bag_cut_short_all_before_the_cut_is_read_by_url(bag, bucket, tmp_path):
    (whole,) = bag.glob("*.mcap")
    content = whole.read_bytes()
    fsspec.filesystem("bucket").pipe_file(f"{bucket}/drive/{whole.name}", content[: int(0.8 * len(content))])
    building.build([open_place(f"{bucket}/drive")], open_place(f"{bucket}/set"), SETTINGS)
    assert "before the cut" in read_bags(open_place(f"{bucket}/set"))[0]["cut"]
    ordered = sorted(drive(), key=lambda m: m[3])
    (database,) = write_with_rosbags(tmp_path / "drive", ordered, StoragePlugin.SQLITE3).glob("*.db3")
    content = database.read_bytes()
    fsspec.filesystem("bucket").pipe_file(f"{bucket}/cut/cut.db3", content[: int(0.8 * len(content))])
    with pytest.raises(InputError, match="has to lie on this machine"):
        BagReader(f"{bucket}/cut/cut.db3")


@pytest.mark.parametrize(
    ("place", "sentence"),
    [("bucket://fleet/none", "a path that does not exist"), ("bucket://fleet/text", "expected a folder with .mcap")],
)
def test_what_is_no_bag_is_told(bucket, place, sentence):
    fsspec.filesystem("bucket").pipe_file(f"{bucket}/text/letter.txt", b"dear")
    with pytest.raises(InputError, match=sentence):
        BagReader(place)


def test_other_settings_and_other_folders_are_refused_by_url(bag, bucket):
    building.build([bag], open_place(f"{bucket}/set"), SETTINGS)
    with pytest.raises(InputError, match="expected the settings that it was begun with"):
        building.build([bag], open_place(f"{bucket}/set"), replace(SETTINGS, image_format="jpeg"))
    fsspec.filesystem("bucket").pipe_file(f"{bucket}/mine/letter.txt", b"dear")
    with pytest.raises(InputError, match="expected a new or empty folder"):
        building.build([bag], open_place(f"{bucket}/mine"), SETTINGS)


def test_the_commands_take_urls(bag, bucket, tmp_path):
    upload(bag, f"{bucket}/drive")
    for words, said in (
        (["dataset", "build", f"{bucket}/drive", "--out", f"{bucket}/set"], f"written: {bucket}/set"),
        (["dataset", "info", f"{bucket}/set"], "/set/sheet.png"),
    ):
        result = CliRunner().invoke(app, words, catch_exceptions=False)
        assert result.exit_code == 0
        assert said in result.output
    assert json.loads(open_place(f"{bucket}/set/dataset.json").read_text())["version"] == 1
    assert open_place(f"{bucket}/set/sheet.png").exists()


IN_A_FORK = """
import sys, torch
sys.path.insert(0, {tests!r})
import test_storage
from dfd_ros.data.open import open_dataset
test_storage.upload(test_storage.Path(sys.argv[1]), "bucket://fleet/set")
loader = torch.utils.data.DataLoader(open_dataset("built:bucket://fleet/set"), batch_size=None, num_workers=1)
assert len([sample.depth for sample in loader]) == 6
"""


def test_forked_loaders_read_by_url(built):
    script = IN_A_FORK.format(tests=str(Path(__file__).parent))
    subprocess.run([sys.executable, "-c", script, str(built)], check=True, timeout=100)
