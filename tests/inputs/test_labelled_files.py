"""Folders and CSVs: which files there are, and what their labels are."""

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from keras_transfer.errors import DataError, InvalidTypeError, KerasTransferWarning
from keras_transfer.inputs.labelled_files import (
    SUFFIXES,
    list_pictures,
    read_csv,
    read_folder,
    read_labelled,
    shown,
)


def make(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def relative(folder, files):
    return [os.path.relpath(file, folder) for file in files]


# === Folders ===


def test_classes_are_the_first_folders_and_files_lie_at_any_depth(tmp_path):
    make(tmp_path, "dog/b.jpg", "cat/2/x.PNG", "cat/10.jpeg", "cat/1.webp", "dog/a.Gif")
    found = read_folder(tmp_path)
    expected = ["cat/1.webp", "cat/10.jpeg", "cat/2/x.PNG", "dog/a.Gif", "dog/b.jpg"]
    assert relative(tmp_path, found.files) == expected
    assert found.labels == ("cat", "cat", "cat", "dog", "dog")
    assert all(os.path.isabs(file) for file in found.files)


def test_what_is_no_picture_is_left_out_and_counted(tmp_path):
    make(tmp_path, "a/1.png", "a/Thumbs.db", "a/.DS_Store", "a/.hidden/2.png", "a/notes.txt")
    make(tmp_path, "b/1.png", "README.md", ".git/3.png")
    found = read_folder(tmp_path)
    assert relative(tmp_path, found.files) == ["a/1.png", "b/1.png"]
    assert found.n_ignored == 6


def test_any_name(tmp_path):
    make(tmp_path, "Käse/猫 1.png", "-/'\".jpg")
    make(tmp_path, os.fsdecode(b"\xff/\xfe.png"))
    found = read_folder(tmp_path)
    assert set(found.labels) == {"Käse", "-", "\udcff"}
    assert all(os.path.exists(file) for file in found.files)


def test_links_are_followed_and_loops_end(tmp_path):
    make(tmp_path, "data/a/1.png", "data/b/1.png", "elsewhere/deep/2.png", "3.png")
    (tmp_path / "data/a/all").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/a/linked.png").symlink_to(tmp_path / "3.png")
    (tmp_path / "data/b/up").symlink_to(tmp_path / "data/b")
    (tmp_path / "data/b/top").symlink_to(tmp_path / "data")
    (tmp_path / "data/b/loop.png").symlink_to(tmp_path / "data/b/loop.png")
    found = read_folder(tmp_path / "data")
    names = relative(tmp_path / "data", found.files)
    assert names[:3] == ["a/1.png", "a/all/deep/2.png", "a/linked.png"]
    assert "b/loop.png" in names  # who opens it says what is wrong
    assert len(names) < 20


def test_a_class_folder_without_pictures(tmp_path):
    make(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "c").mkdir()
    with pytest.warns(KerasTransferWarning, match="no picture in c"):
        found = read_folder(tmp_path)
    assert set(found.labels) == {"a", "b"}


NO_FOLDERS = {
    "empty": ([], "with none"),
    "pictures alone": (["1.png"], r"belong to none, such as 1\.png"),
    "pictures beside folders": (["a/1.png", "b/2.png", "c.jpg"], r"such as c\.jpg"),
    "no pictures": (["a/1.txt", "b/2.txt"], r"with none in a, b"),
}


@pytest.mark.parametrize(("names", "message"), NO_FOLDERS.values(), ids=NO_FOLDERS)
def test_what_is_no_folder_of_class_folders(names, message, tmp_path):
    make(tmp_path, *names)
    with pytest.raises(DataError, match=message) as e:
        read_folder(tmp_path)
    assert str(tmp_path) in str(e.value)


@contextmanager
def locked(path):
    """Lock a path for whoever runs the test, also if that is root, whom no lock holds."""
    is_root = os.geteuid() == 0
    modes = {path: path.stat().st_mode}
    if is_root:  # pytest's own folders are for root alone
        modes |= {parent: parent.stat().st_mode for parent in path.parents}
    try:
        for parent in path.parents if is_root else ():
            if modes[parent] & 0o055 != 0o055:
                parent.chmod(modes[parent] | 0o055)  # seteuid keeps the group
        path.chmod(0o000)
        if is_root:
            os.seteuid(65534)
        yield
    finally:
        if is_root:
            os.seteuid(0)
        for changed, mode in modes.items():
            if changed.stat().st_mode != mode:
                changed.chmod(mode)


@pytest.mark.parametrize("name", [".", "a", "a/deep"])
def test_a_folder_that_cannot_be_read(name, tmp_path):
    make(tmp_path, "a/deep/1.png", "b/1.png")
    with locked(tmp_path / name), pytest.raises(DataError, match="Permission denied") as e:
        read_folder(tmp_path)
    assert str(e.value).startswith(f"{tmp_path / name}: ")


def test_a_list_of_files_and_folders(tmp_path):
    make(tmp_path, "in/b.png", "in/deep/a.jpg", "in/x.txt", "in/.h.png", "c.dat")
    (tmp_path / "none").mkdir()
    listed = list_pictures([tmp_path / "c.dat", tmp_path / "in", str(tmp_path / "missing.png")])
    assert relative(tmp_path, listed) == ["c.dat", "in/b.png", "in/deep/a.jpg", "missing.png"]
    with pytest.raises(DataError, match=r"none, a folder without any"):
        list_pictures([tmp_path / "none"])


def test_every_suffix_in_any_case(tmp_path):
    names = [f"a/{i}{suffix}" for i, suffix in enumerate(sorted(SUFFIXES))]
    make(tmp_path, *names, *(name.upper().replace("A/", "b/") for name in names))
    make(tmp_path, "a/jpg", "a/x.jpg.txt", "a/x.png~", "a/y.tiff")
    found = read_folder(tmp_path)
    assert len(found.files) == 2 * len(SUFFIXES)
    assert found.labels.count("b") == len(SUFFIXES)
    assert found.n_ignored == 4
    common = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp"}
    assert common <= SUFFIXES


def test_the_order_is_that_of_names_level_by_level(tmp_path):
    names = ["B/1.png", "a/1/z.png", "a/1.png", "a/10.png", "a/2.png", "a/Z.png", "a-b/1.png"]
    make(tmp_path, *reversed(names))
    expected = sorted(names, key=lambda name: name.split("/"))
    assert relative(tmp_path, read_folder(tmp_path).files) == expected
    assert expected.index("a/1/z.png") < expected.index("a/1.png")  # a whole path sorts otherwise


def test_a_single_class_is_let_through(tmp_path):
    make(tmp_path, "a/1.png")
    assert read_folder(tmp_path).labels == ("a",)


def test_ways_to_write_the_folder(tmp_path, monkeypatch):
    make(tmp_path, "data/a/1.png", "other/1.txt")
    monkeypatch.chdir(tmp_path / "other")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    for path in ("../data", "../data/", Path("../data"), os.fsencode("../data")):
        found = read_labelled(path)
        assert found.files == (str(tmp_path / "data/a/1.png"),)
        assert found.source == str(tmp_path / "data")
    assert read_folder("../link").files == (str(tmp_path / "link/a/1.png"),)  # not resolved


def test_a_hidden_folder_is_read_where_it_is_asked_for(tmp_path):
    make(tmp_path, ".data/a/1.png", ".data/.b/1.png", ".data/.c.png")
    found = read_folder(tmp_path / ".data")
    assert (found.labels, found.n_ignored) == (("a",), 2)


def test_links_that_lead_nowhere(tmp_path):
    make(tmp_path, "a/1.png", "file")
    (tmp_path / "a/gone.png").symlink_to(tmp_path / "missing")
    (tmp_path / "a/below.png").symlink_to(tmp_path / "a/1.png/x")
    (tmp_path / "a/itself.png").symlink_to("itself.png")
    for name, target in {"gone": "missing", "below": "1.png/x", "itself": "itself"}.items():
        (tmp_path / "a" / name).symlink_to(target)
    (tmp_path / "file").unlink()
    found = read_folder(tmp_path)
    names = ["a/1.png", "a/below.png", "a/gone.png", "a/itself.png"]
    assert relative(tmp_path, found.files) == names
    assert found.n_ignored == 3


def test_a_linked_class_folder_has_the_name_of_the_link(tmp_path):
    make(tmp_path, "elsewhere/x/1.png", "data/a/1.png")
    (tmp_path / "data/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/b.png").symlink_to(tmp_path / "elsewhere")  # a folder, whatever its suffix
    assert read_folder(tmp_path / "data").labels == ("a", "b", "b.png")


def test_folders_that_hold_each_other_end(tmp_path):
    make(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "a/to_b").symlink_to(tmp_path / "b")
    (tmp_path / "b/to_a").symlink_to(tmp_path / "a")
    found = read_folder(tmp_path)
    names = ["a/1.png", "a/to_b/2.png", "b/2.png", "b/to_a/1.png"]
    assert relative(tmp_path, found.files) == names
    assert found.n_ignored == 2  # the two links back
    # Seen twice by two ways is no loop.
    (tmp_path / "c").symlink_to(tmp_path / "b")
    assert found.labels + ("c",) * 2 == read_folder(tmp_path).labels


def test_a_link_to_the_whole_does_not_mix_the_classes(tmp_path):
    make(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "b/all").symlink_to(tmp_path)
    (tmp_path / "all").symlink_to(tmp_path)
    with pytest.warns(KerasTransferWarning, match="no picture in all"):
        found = read_folder(tmp_path)
    assert relative(tmp_path, found.files) == ["a/1.png", "b/2.png"]
    assert found.n_ignored == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_what_would_wait_for_ever_is_no_picture(tmp_path):
    make(tmp_path, "a/1.png")
    os.mkfifo(tmp_path / "a/2.png")
    found = read_folder(tmp_path)
    assert relative(tmp_path, found.files) == ["a/1.png"]
    assert found.n_ignored == 1


def test_folders_deeper_than_python_calls(tmp_path):
    make(tmp_path, "a/" + "d/" * 200 + "1.png")
    code = (
        "import sys\n"
        "from keras_transfer.inputs.labelled_files import read_folder\n"
        "sys.setrecursionlimit(100)\n"
        "print(len(read_folder(sys.argv[1]).files))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def test_many_files_are_listed_quickly(tmp_path):
    n = 2_000
    (tmp_path / "a").mkdir()
    for i in range(n):
        os.close(os.open(tmp_path / "a" / f"{i}.png", os.O_CREAT | os.O_WRONLY))
    start = time.process_time()  # of this process alone: others may keep the disk and cores busy
    found = read_folder(tmp_path)
    assert time.process_time() - start < 0.2  # 2 s of 20,000 files
    assert len(set(found.files)) == n


def test_a_link_that_may_be_a_folder_is_not_missed(tmp_path):
    make(tmp_path, "data/a/1.png", "private/pictures/2.png")
    (tmp_path / "data/a/more").symlink_to(tmp_path / "private/pictures")
    with locked(tmp_path / "private"), pytest.raises(DataError, match="Permission denied") as e:
        read_folder(tmp_path / "data")
    assert str(tmp_path / "data/a/more") in str(e.value)
    (tmp_path / "data/a/more").rename(tmp_path / "data/a/more.png")
    with locked(tmp_path / "private"):  # who opens a picture says that it cannot be read
        assert len(read_folder(tmp_path / "data").files) == 2


def test_names_that_are_no_text_are_kept_and_can_be_shown(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9")).mkdir()
    with pytest.raises(DataError) as e:
        read_folder(tmp_path / os.fsdecode(b"caf\xe9"))
    str(e.value).encode()  # a surrogate could not be written to a log
    assert r"caf\udce9: expected" in str(e.value)
    assert shown("猫.png") == "猫.png"


def test_many_empty_class_folders_are_named_in_one_warning(tmp_path):
    make(tmp_path, "z/1.png", *(f"{i:02}/x.txt" for i in range(12)))
    with pytest.warns(KerasTransferWarning, match=r"in 00, 01, .*, 09 and 2 more") as caught:
        read_folder(tmp_path)
    assert len(caught) == 1
    assert caught[0].filename == __file__


@pytest.mark.parametrize("read", [read_labelled, read_folder, read_csv], ids=lambda f: f.__name__)
@pytest.mark.parametrize("path", ["", "missing", "nul\0", "file/below"])
def test_a_path_that_is_none(read, path, tmp_path, monkeypatch):
    make(tmp_path, "a/1.png", "file")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="Received: ") as e:
        read(path)
    assert (path or "empty") in str(e.value)


@pytest.mark.parametrize("path", [None, 3, ["a"]])
def test_what_is_no_path(path):
    for read in (read_labelled, read_folder, read_csv):
        with pytest.raises(InvalidTypeError, match="expected a str or path"):
            read(path)


def test_a_file_is_no_folder_and_a_folder_is_no_table(tmp_path):
    make(tmp_path, "x.png", "t.csv/a/1.png")
    with pytest.raises(DataError, match=r"x\.png: expected a folder .*Received: a file"):
        read_folder(tmp_path / "x.png")
    with pytest.raises(DataError, match=r"t\.csv: expected a file that can be read"):
        read_csv(tmp_path / "t.csv")
    assert read_labelled(tmp_path / "t.csv").labels == ("a",)


# === Lists ===


def test_a_list_stays_as_it_was_given(tmp_path, monkeypatch):
    make(tmp_path, "in/2.png", "in/1/a.png", "x.dat")
    monkeypatch.chdir(tmp_path)
    given = ["x.dat", Path("in"), "", "~/y.png", b"z.png", "x.dat"]
    expected = ["x.dat", "in/1/a.png", "in/2.png", "", "~/y.png", "z.png", "x.dat"]
    assert list_pictures(given) == expected
    assert list_pictures(iter(["in/"])) == ["in/1/a.png", "in/2.png"]
    assert list_pictures([]) == []


def test_links_in_a_list(tmp_path):
    make(tmp_path, "in/1.png")
    (tmp_path / "in/up").symlink_to(tmp_path / "in")
    (tmp_path / "in/gone.png").symlink_to("missing")
    (tmp_path / "link").symlink_to("in")
    for name in ("in", "link"):
        found = relative(tmp_path, list_pictures([tmp_path / name]))
        assert found == [f"{name}/1.png", f"{name}/gone.png"]


def test_a_list_with_a_folder_that_cannot_be_read(tmp_path):
    make(tmp_path, "in/1.png", "in/deep/2.png")
    with locked(tmp_path / "in/deep"), pytest.raises(DataError, match="Permission denied") as e:
        list_pictures([tmp_path / "in"])
    assert str(tmp_path / "in/deep") in str(e.value)


@pytest.mark.parametrize("paths", ["x.png", b"x.png", Path("x.png"), [None], [3]], ids=repr)
def test_what_is_no_list_of_paths(paths):
    with pytest.raises(InvalidTypeError, match="path"):
        list_pictures(paths)


# === Tables ===


def write(folder, text, name="labels.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


TABLES = {
    "header": "path,label\na.png,cat\nsub/b.png,dog\n",
    "no header": "a.png,cat\nsub/b.png,dog\n",
    "other order and columns": "id,Label,PATH\n1,cat,a.png\n2,dog,sub/b.png\n",
    "semicolons": "path;label\na.png;cat\nsub/b.png;dog\n",
    "tabs": "path\tlabel\na.png\tcat\nsub/b.png\tdog\n",
    "spaces and blank lines": "\npath , label\n\n a.png , cat\n,\nsub/b.png,dog \n\n",
    "quotes": 'path,label\n"a.png","cat"\n"sub/b.png",dog\n',
    "Windows": "\ufeffpath,label\r\na.png,cat\r\nsub/b.png,dog\r\n",
    "dots": "path,label\n./a.png,cat\nsub/../sub/b.png,dog\n",
    "blank lines and semicolons": "\n \na.png;cat\nsub/b.png;dog\n",
    "no line end": "a.png,cat\nsub/b.png,dog",
    "old Mac": "a.png,cat\rsub/b.png,dog\r",
    "blank cells": "path;label\n;\na.png;cat\n ; \nsub/b.png;dog\n",
    "spaces at quotes": 'a.png, "cat"\n "sub/b.png" ,"dog "\n',
    "a text of two lines": 'path,text,label\na.png,"x\ny",cat\nsub/b.png,"\n",dog\n',
    "a comma in semicolons": '"path";"label";"a, b"\na.png;cat;1,5\nsub/b.png;dog;\n',
}


@pytest.mark.parametrize("text", TABLES.values(), ids=TABLES)
def test_tables(text, tmp_path):
    found = read_csv(write(tmp_path, text))
    assert relative(tmp_path, found.files) == ["a.png", "sub/b.png"]
    assert found.labels == ("cat", "dog")


def test_paths_are_relative_to_the_table(tmp_path, monkeypatch):
    write(tmp_path, f"a.png,x\n{tmp_path / 'else/b.png'},y\n")
    monkeypatch.chdir(tmp_path)
    found = read_csv("labels.csv")
    assert found.files == (str(tmp_path / "a.png"), str(tmp_path / "else/b.png"))


def test_any_text_in_cells(tmp_path):
    rows = {"Käse, 1.png": "a;b", 'x"y.png': "猫", "~/z.png": "~", "x\u2028.png": "1\u2028\x0b2"}
    text = "".join(f'"{file.replace(chr(34), chr(34) * 2)}","{rows[file]}"\n' for file in rows)
    found = read_csv(write(tmp_path, text))
    assert found.labels == tuple(rows.values())
    assert found.files == tuple(str(tmp_path / file) for file in rows)
    assert (found.n_ignored, found.source) == (0, str(tmp_path / "labels.csv"))


def test_tabs_come_first_in_a_tsv(tmp_path):
    found = read_csv(write(tmp_path, "a, b.png\tcat, dog\n", "labels.Tsv"))
    assert relative(tmp_path, found.files) == ["a, b.png"]
    assert found.labels == ("cat, dog",)
    assert read_csv(write(tmp_path, "a.png,cat\n", "labels.tsv")).labels == ("cat",)


BROKEN_TABLES = {
    "empty": ("", "expected lines of path and label. Received: none"),
    "header alone": ("path,label\n", "a header alone"),
    "a label missing": ("path,label\na.png,cat\nb.png,\nc.png\n", "a label .* line 3, 4"),
    "a path missing": ("path,label\n,cat\n", "a path in every line.* line 2"),
    "many missing": ("path,label\n" + "a.png,\n" * 8, r"line 2, 3, 4, 5, 6 and 3 more"),
    "two labels": ("a.png,cat\nb.png,dog\n./a.png,dog\n", "'cat' in line 1, 'dog' in line 3"),
    "other header": ("file,class\na.png,cat\n", "Received: file, class"),
    "three columns": ("a.png,cat,1\n", "Received: a.png, cat, 1"),
    "one column": ("a.png\n", "two columns without a header"),
    "blank": ("\n , \n\n", "Received: none"),
    "blank lines count": ("\n\na.png,cat\n\nb.png,\n", "none in line 5"),
    "lines in cells count": ('path,label,x\na,b,"1\n2"\nc,,3\n', "none in line 4"),
    "too many cells": ("a.png,cat\nb,c.png,dog\nd.png,e,f\n", "2 cells .* line 2, 3. Put"),
    "too few cells": ("path,label,x\na.png,cat\n", "3 cells .* another number in line 2"),
    "path missing in a short line": ("x,label,path\n1,cat\n", "a path .* line 2"),
    "two path columns": ("path,label,path\na,b,c\n", "Received: path, label, path"),
    "path alone": ("path,kind\na.png,cat\n", "Received: path, kind"),
    "label alone": ("picture,LABEL\na.png,cat\n", "Received: picture, LABEL"),
    "target": ("x;Target\na.png;cat\n", "Received: x, Target"),
    "filename": (" FileName ,x\n", "Received: FileName, x"),
    "class": ("x,class\n", "Received: x, class"),
    "image": ("image,x\n", "Received: image, x"),
    "a quote left open": ('path,label\na.png,"cat\nb.png,dog\nc.png,dog\n', "the one in line 2"),
    "a quote left open elsewhere": ('path,label,x\na,b,\nc,d,"\ne,f,\n', "the one in line 3"),
    "a cell without an end": ("a.png,cat\nb.png," + "x" * 200_000, "line 2: field larger"),
    "NUL": ("a.png,cat\nb.png,d\0g\n", "text in UTF-8.* in line 2. Save"),
}


@pytest.mark.parametrize(("text", "message"), BROKEN_TABLES.values(), ids=BROKEN_TABLES)
def test_broken_tables(text, message, tmp_path):
    with pytest.raises(DataError, match=message) as e:
        read_csv(write(tmp_path, text))
    assert str(e.value).startswith(str(tmp_path / "labels.csv"))


def test_another_encoding(tmp_path):
    with pytest.raises(DataError, match=r"labels\.csv: expected text in UTF-8.*Save it as UTF-8"):
        read_csv(write(tmp_path, "Käse.png,cat\n", encoding="latin-1"))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_wide_text(encoding, tmp_path):
    with pytest.raises(DataError, match=r"text in UTF-8.* in line 1\. Save it as UTF-8"):
        read_csv(write(tmp_path, "a.png,cat\n", encoding=encoding))


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
def test_the_line_that_is_not_utf_8_is_named(start, tmp_path):
    (tmp_path / "t.csv").write_bytes(start + b"a,cat\r\nb,dog\r\n\xe9,dog\r\n")
    with pytest.raises(DataError, match=r"t\.csv: expected text in UTF-8.* in line 3\."):
        read_csv(tmp_path / "t.csv")


def test_a_table_that_cannot_be_read(tmp_path):
    path = write(tmp_path, "a.png,cat\n")
    with locked(path), pytest.raises(DataError, match=r"labels\.csv.*Permission denied"):
        read_labelled(path)


def test_a_file_named_twice_is_used_once(tmp_path):
    path = write(tmp_path, "a.png,cat\nb.png,dog\na.png,cat\nb.png,dog\n")
    with pytest.warns(KerasTransferWarning, match=r"2 lines .* the first a\.png in lines 1 and 3"):
        found = read_csv(path)
    assert relative(tmp_path, found.files) == ["a.png", "b.png"]
    assert found.labels == ("cat", "dog")


def test_either(tmp_path):
    make(tmp_path, "data/a/1.png", "data/b/1.png", "x.png")
    assert len(read_labelled(tmp_path / "data").files) == 2
    assert read_labelled(write(tmp_path, "x.png,a\n", "T.TSV")).labels == ("a",)
    with pytest.raises(DataError, match=r"Received: '.*x\.png', which is neither"):
        read_labelled(tmp_path / "x.png")
    with pytest.raises(DataError, match=r"no such file or folder"):
        read_labelled(tmp_path / "missing")


def test_nothing_heavy_is_imported():
    code = (
        "import sys, keras_transfer.inputs.labelled_files\n"
        "print([m for m in ('tensorflow', 'keras', 'sklearn', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
