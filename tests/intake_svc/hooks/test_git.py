"""The repository and the branch of a folder, by git's own files, without a user and a token."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intake_svc.hooks.git import repository_and_branch, without_user
from intake_svc.names import repository_name

TOKEN = "ghp_0123456789abcdefghijklmnopqrstuvwxyz"


def git(folder: Path, *words: str) -> None:
    names = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "init.defaultBranch=main")
    env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    subprocess.run(["git", *names, *words], cwd=folder, check=True, capture_output=True, env=env)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    folder = tmp_path / "shop"
    folder.mkdir()
    git(folder, "init")
    git(folder, "remote", "add", "fork", "https://example.com/fork.git")
    git(folder, "remote", "add", "origin", f"https://ada:{TOKEN}@example.com/acme/shop.git")
    return folder


def test_a_folder_below_the_working_tree(repository):
    below = repository / "a" / "b"
    below.mkdir(parents=True)
    assert repository_and_branch(str(below)) == ("https://example.com/acme/shop.git", "main")


def test_another_working_tree_has_its_own_branch(repository, tmp_path):
    git(repository, "commit", "--allow-empty", "-m", "x")
    git(repository, "worktree", "add", "-b", "topic/one", str(tmp_path / "other"))
    assert repository_and_branch(str(tmp_path / "other")) == ("https://example.com/acme/shop.git", "topic/one")
    git(repository, "checkout", "--detach")
    assert repository_and_branch(str(repository)) == ("https://example.com/acme/shop.git", "")


def test_a_folder_that_says_nothing(tmp_path):
    assert repository_and_branch(str(tmp_path)) == ("", "")
    (tmp_path / ".git").write_text("gitdir: elsewhere\n")
    assert repository_and_branch(str(tmp_path)) == ("", "")
    assert repository_and_branch("/nonexistent/folder") == ("", "")


@pytest.mark.parametrize(
    "head", ["ref: refs/heads/a\r\nX: y", "ref: refs/heads/a b", "\0\n", "ref: refs/heads/" + "x" * 300]
)
def test_what_may_stand_in_no_header_is_not_told(repository, head):
    (repository / ".git/HEAD").write_text(head)
    assert repository_and_branch(str(repository))[1] == ""


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"https://{TOKEN}@github.com/acme/shop.git", "https://github.com/acme/shop.git"),
        (f"https://oauth2:{TOKEN}@gitlab.example.com:8443/a/b", "https://gitlab.example.com:8443/a/b"),
        (f"https://ada:pass/{TOKEN}@example.com/a.git", "https://example.com/a.git"),
        (f"https://example.com/a.git?token={TOKEN}#{TOKEN}", "https://example.com/a.git"),
        ("git@github.com:acme/shop.git", "github.com:acme/shop.git"),
        ("ssh://git@example.com:22/acme/shop.git", "ssh://example.com:22/acme/shop.git"),
        ("https://dev.azure.com/acme/My%20Shop/_git/shop", "https://dev.azure.com/acme/My%20Shop/_git/shop"),
        ("acme/shop", "acme/shop"),
        ("/srv/git/shop.git", "/srv/git/shop.git"),
    ],
)
def test_a_url_is_shown_without_user_and_token(url, shown):
    assert without_user(url) == repository_name(url) == shown


_part = st.text("abc:/%.-_~?#@", max_size=8)


@given(user=_part, password=_part, host=st.sampled_from(["example.com", "example.com:22"]), path=_part)
def test_no_password_is_shown_whatever_it_has(user, password, host, path):
    assert "SECRET" not in without_user(f"https://{user}:SECRET{password}@{host}/{path}")
    assert "SECRET" not in without_user(f"{user}SECRET{password.replace('/', '')}@{host}:{path}")


def test_a_sentence_is_no_repository():
    assert repository_name("it is a sentence") == ""
