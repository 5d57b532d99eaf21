from harness.storage.local_copy import mirrored
from harness.storage.store import Store


def test_on_local_disk_it_is_the_folder_itself(tmp_path):
    store = Store(str(tmp_path))
    store.put("s/sweep.json", b"{}")
    with mirrored(store, "s") as folder:
        assert folder == tmp_path / "s"


def test_a_copy_has_what_tables_need_and_uploads_what_was_made(monkeypatch):
    store = Store("memory://mirror-test")
    needed = {
        "sweep.json",
        "data/a.json",
        "groups/a-kmeans-k3.json",
        "real/a.json",
        "runs/r/run.json",
        "runs/r/failures.txt",
        "runs/r/samples/last.png",
        "tables/tables.md",
    }
    for name in needed | {"runs/r/checkpoint.pt", "runs/r/generator.safetensors"}:
        store.put(f"s/{name}", name.encode())
    with mirrored(store, "s") as folder:
        found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
        assert found == needed
        (folder / "tables" / "tables.md").write_text("ours")
        (folder / "figures").mkdir()
        (folder / "figures" / "curves.png").write_bytes(b"drawn")
        written = []
        monkeypatch.setattr(Store, "put", lambda _, key, data: written.append((key, data)))
    assert dict(written) == {"s/tables/tables.md": b"ours", "s/figures/curves.png": b"drawn"}


def test_outdated_tables_are_removed_from_the_bucket():
    store = Store("memory://mirror-stale-test")
    for name in ("tables/old.csv", "tables/again.csv", "figures/kept.png"):
        store.put(f"s/{name}", b"before")
    with mirrored(store, "s") as folder:
        (folder / "tables" / "old.csv").unlink()
        (folder / "tables" / "again.csv").write_text("after")
    assert store.list("s") == ["s/figures/kept.png", "s/tables/again.csv"]
    assert store.get("s/figures/kept.png") == b"before"
    assert store.get("s/tables/again.csv") == b"after"
