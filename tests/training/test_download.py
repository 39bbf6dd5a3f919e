"""Downloads against a server on this machine that breaks off, forgets, and lies."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import prepare

CONTENT = bytes(range(256)) * 4096  # 1 MiB


class Flaky(BaseHTTPRequestHandler):
    """Serves CONTENT. `breaks` lists after how many bytes the next answers break off."""

    breaks: list[int]
    ranges: list[str | None]
    resumes = True
    status = 200

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.ranges.append(asked)
        if self.status != 200:
            self.send_error(self.status)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.resumes else 0
        if start > len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.end_headers()
        end = start + self.breaks.pop(0) if self.breaks else len(CONTENT)
        self.wfile.write(CONTENT[start:end])
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, type[Flaky]]]:
    handler = type("Handler", (Flaky,), {"breaks": [], "ranges": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{listening.server_address[1]}/shard.parquet", handler
        listening.shutdown()
        thread.join()


def test_a_broken_download_goes_on_where_it_stopped(server: tuple[str, type[Flaky]], tmp_path: Path) -> None:
    url, handler = server
    handler.breaks = [300_000, 400_000]
    seen: list[tuple[int, int]] = []
    digest = prepare.download(url, tmp_path / "shard", lambda done, total: seen.append((done, total)), pause=0)
    assert (tmp_path / "shard").read_bytes() == CONTENT
    assert digest == prepare.sha256_file(tmp_path / "shard") == (tmp_path / "shard.sha256").read_text()
    assert handler.ranges == [None, "bytes=262144-", "bytes=524288-"]  # whole chunks of 256 KiB are kept
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert not (tmp_path / "shard.part").exists()


def test_a_server_that_cannot_resume_sends_all_of_it_again(server: tuple[str, type[Flaky]], tmp_path: Path) -> None:
    url, handler = server
    handler.breaks, handler.resumes = [300_000], False
    prepare.download(url, tmp_path / "shard", pause=0)
    assert (tmp_path / "shard").read_bytes() == CONTENT


def test_a_part_that_does_not_fit_is_thrown_away(server: tuple[str, type[Flaky]], tmp_path: Path) -> None:
    url, handler = server
    (tmp_path / "shard.part").write_bytes(b"x" * (len(CONTENT) + 1))
    prepare.download(url, tmp_path / "shard", pause=0)
    assert (tmp_path / "shard").read_bytes() == CONTENT
    assert handler.ranges[-1] is None


def test_a_shard_is_fetched_once_and_again_only_if_damaged(server: tuple[str, type[Flaky]], tmp_path: Path) -> None:
    url, handler = server
    prepare.download(url, tmp_path / "shard")
    prepare.download(url, tmp_path / "shard")
    assert len(handler.ranges) == 1
    (tmp_path / "shard").write_bytes(b"y" + CONTENT[1:])
    prepare.download(url, tmp_path / "shard")
    assert len(handler.ranges) == 2
    assert (tmp_path / "shard").read_bytes() == CONTENT


@pytest.mark.parametrize(("status", "attempts"), [(404, 1), (403, 1), (503, 4), (429, 4)])
def test_giving_up_says_what_to_do(server: tuple[str, type[Flaky]], tmp_path: Path, status: int, attempts: int) -> None:
    url, handler = server
    handler.status = status
    with pytest.raises(prepare.HarnessError, match=rf"{status}.* run this again .it resumes., or use --profile stdlib"):
        prepare.download(url, tmp_path / "shard", pause=0)
    assert len(handler.ranges) == attempts


def test_shards_that_cannot_be_had_end_in_one_error(tmp_path: Path) -> None:
    profile = prepare.Profile("climbmix", "", 256, 32, 64, url="http://127.0.0.1:9")  # nothing listens on discard
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "DOWNLOAD_ATTEMPTS", 1)
        with pytest.raises(prepare.HarnessError, match=r"could not download http://127\.0\.0\.1:9/shard_0"):
            prepare.download_shards([f"shard_{i}" for i in range(6)], profile, tmp_path)


def test_shards_come_in_the_order_asked(server: tuple[str, type[Flaky]], tmp_path: Path) -> None:
    profile = prepare.Profile("climbmix", "", 256, 32, 64, url=server[0].rpartition("/")[0])
    digests = prepare.download_shards(["a", "b", "c"], profile, tmp_path)
    assert digests == [prepare.sha256_file(tmp_path / name) for name in "abc"]
