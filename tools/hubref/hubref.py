#!/usr/bin/env python3
"""Caches of a hub, shared between Python's huggingface_hub and torchgo.

usage: hubref.py OUT        (in the repository's root; then: go run ./tools/pack OUT testdata/hub.tar.zst)
needs: huggingface_hub 2.4.0, transformers 5.23.0, torch 2.15.0, safetensors, Go

It serves a few small repositories on this machine, as a hub does, and
  1. has huggingface_hub fill a cache and a local folder from them     -> OUT/python-cache, OUT/python-local
  2. has torchgo's test fill another one from the same repositories, and has huggingface_hub and transformers
     judge it, offline                                                 -> OUT/verdict.json
  3. records what huggingface_hub sends when it makes commits                                              -> OUT/push.json
  4. records what huggingface_hub says about ids, file names, patterns -> OUT/rules.json

OUT/repos.json and OUT/files are the repositories. Symbolic links, which an archive of the repository can't have,
are in OUT/links.json. verdict.json has a digest of the judged cache: its paths, link targets and contents. The Go
test makes the same cache again and compares.
"""
import base64, hashlib, http.server, json, os, random, re, shutil, subprocess, sys, tempfile, threading, urllib.parse

GO_TEST = ["go", "test", "-count=1", "./pretrained/hub", "-run", "^TestPythonAcceptsOurCache$"]


def git_hash(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def is_lfs(name):
    return name.endswith((".safetensors", ".bin"))


def etag(name, data):
    return hashlib.sha256(data).hexdigest() if is_lfs(name) else git_hash(data)


class Hub:
    """repos: {path: {"commits": {hash: {name: bytes}}, "refs": {name: hash}}}; path has the prefix datasets/ for those."""

    def __init__(self, repos):
        self.repos, self.requests, self.pushes, self.stored, self.have = repos, [], [], {}, set()
        self.servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.handler(s)) for s in (False, True)]
        for s in self.servers:
            threading.Thread(target=s.serve_forever, daemon=True).start()
        self.url, self.storage = (f"http://127.0.0.1:{s.server_port}" for s in self.servers)

    def handler(hub, storage):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def say(self, status, body=b"", **headers):
                self.send_response(status)
                for k, v in headers.items():
                    self.send_header(k.replace("_", "-"), v)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def do_GET(self):
                hub.requests.append((self.command, self.path))
                if storage:
                    data = next(d for r in hub.repos.values() for c in r["commits"].values() for n, d in c.items()
                                if is_lfs(n) and etag(n, d) == self.path.strip("/"))
                    return self.say(200, data, ETag='"storage"', Content_Type="application/octet-stream")
                path = urllib.parse.urlsplit(self.path).path
                m = re.fullmatch(r"/(api/)?(?:models/)?(.+?)/(resolve|revision|tree)/([^/]+)(?:/(.*))?", path)
                repo = hub.repos.get(m[2])
                if repo is None:
                    return self.say(401, X_Error_Code="RepoNotFound")
                rev = urllib.parse.unquote(m[4])
                commit = repo["refs"].get(rev, rev)
                files = repo["commits"].get(commit)
                if files is None:
                    return self.say(404, X_Error_Code="RevisionNotFound")
                if m[3] == "revision":
                    info = {"id": m[2].removeprefix("datasets/"), "sha": commit, "private": False, "tags": [], "siblings": [],
                            "gated": False, "downloads": 0, "likes": 0}
                    return self.say(200, json.dumps(info).encode(), Content_Type="application/json")
                if m[3] == "tree":
                    tree = []
                    for name, data in sorted(files.items()):
                        e = {"type": "file", "path": name, "size": len(data), "oid": git_hash(data)}
                        if is_lfs(name):
                            e["oid"] = git_hash(etag(name, data).encode())
                            e["lfs"] = {"oid": etag(name, data), "size": len(data), "pointerSize": 134}
                        tree.append(e)
                    return self.say(200, json.dumps(tree).encode(), Content_Type="application/json")
                name = urllib.parse.unquote(m[5])
                if name not in files:
                    return self.say(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
                data = files[name]
                if is_lfs(name):
                    return self.say(302, X_Repo_Commit=commit, X_Linked_Etag=f'"{etag(name, data)}"', X_Linked_Size=str(len(data)),
                                    Location=f"{hub.storage}/{etag(name, data)}")
                self.say(200, data, X_Repo_Commit=commit, ETag=f'"{etag(name, data)}"', Content_Type="text/plain")

            do_HEAD = do_GET

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = urllib.parse.urlsplit(self.path).path
                hub.pushes.append({"method": self.command, "path": self.path.replace("?" + SIGNED, "").replace("&" + SIGNED, ""), "body": parse(body),
                                   "storage": storage, "token": self.headers.get("Authorization", "") == "Bearer " + TOKEN})

                def answer(v):
                    self.say(200, json.dumps(v).encode(), Content_Type="application/json")
                if path == "/api/validate-yaml":
                    hub.pushes.pop()
                    return answer({"errors": [], "warnings": []})
                if storage:  # PUT
                    oid, part = path.strip("/"), urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query).get("part", [""])[0]
                    hub.pushes[-1]["body"] = hashlib.sha256(body).hexdigest()
                    hub.stored[(oid, part)] = body
                    return self.say(200, ETag=f'"part-{part}"')
                if path == "/api/repos/create":
                    q = json.loads(body)
                    id = f"{q['organization'] or 'me'}/{q['name']}"
                    if id in hub.repos:
                        return self.say(409, json.dumps({"error": "You already created this model repo", "url": f"{hub.url}/{id}"}).encode(), Content_Type="application/json")
                    hub.repos[id] = {"commits": {"0" * 40: {}}, "refs": {"main": "0" * 40}}
                    return answer({"url": f"{hub.url}/{id}"})
                if path.endswith("/info/lfs/objects/batch"):
                    objects = []
                    for o in json.loads(body)["objects"]:
                        oid, n = o["oid"], -(-o["size"] // PART)
                        a = {"oid": oid, "size": o["size"]}
                        if oid not in hub.have:
                            upload = {"href": f"{hub.storage}/{oid}?{SIGNED}"}
                            if n > 1:
                                upload = {"href": f"{hub.url}/api/complete/{oid}", "header": {"chunk_size": str(PART), **{
                                    str(i + 1): f"{hub.storage}/{oid}?part={i + 1}&{SIGNED}" for i in range(n)}}}
                            a["actions"] = {"upload": upload, "verify": {"href": f"{hub.url}/api/verify/{oid}"}}
                        objects.append(a)
                    return answer({"transfer": "multipart", "objects": objects})
                if path.startswith("/api/complete/"):
                    return answer({})
                if path.startswith("/api/verify/"):
                    hub.have.add(path.rsplit("/", 1)[1])
                    return answer({})
                m = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit|branch)/([^/]+)", path)
                repo, rev = hub.repos[m[1]], urllib.parse.unquote(m[3])
                files = repo["commits"][repo["refs"].get(rev, "0" * 40)]
                if m[2] == "branch":
                    if rev in repo["refs"]:
                        return self.say(409)
                    repo["refs"][rev] = repo["refs"]["main"]
                    return answer({})
                if m[2] == "preupload":
                    return answer({"files": [{"path": f["path"], "uploadMode": "lfs" if is_lfs(f["path"]) else "regular", "shouldIgnore": f["path"].endswith(".ignored"),
                                              **({"oid": etag(f["path"], files[f["path"]])} if f["path"] in files else {})} for f in json.loads(body)["files"]]})
                files = dict(files)
                for line in parse(body)[1:]:
                    v = line["value"]
                    if line["key"] == "file":
                        files[v["path"]] = base64.b64decode(v["content"])
                    else:
                        n = -(-v["size"] // PART)
                        files[v["path"]] = b"".join(hub.stored[(v["oid"], str(i + 1) if n > 1 else "")] for i in range(n))
                commit = hashlib.sha1(body).hexdigest()
                repo["commits"][commit] = files
                if "create_pr" not in self.path:
                    repo["refs"][rev] = commit
                answer({"commitOid": commit, "commitUrl": f"{hub.url}/{m[1]}/commit/{commit}", "pullRequestUrl": f"{hub.url}/{m[1]}/discussions/1"})

            do_PUT = do_POST

        return Handler


TOKEN, SIGNED, PART = "hf_test", "X-Signature=SIGNED-SECRET", 100


def parse(body):
    """What was sent: a document, or one a line."""
    try:
        return json.loads(body) if body else None
    except ValueError:
        return [json.loads(line) for line in body.splitlines()] if body.startswith(b"{") else None


def commit_of(*parts):
    return hashlib.sha1("/".join(parts).encode()).hexdigest()


def repositories():
    import torch
    from transformers import BertConfig, BertModel
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as d:
        BertModel(BertConfig(vocab_size=40, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12,
                             max_position_embeddings=16)).save_pretrained(d)
        bert = {n: open(os.path.join(d, n), "rb").read() for n in sorted(os.listdir(d))}
    bert["README.md"] = b"# Tiny BERT\n"
    bert["vocab/vocab.txt"] = "\n".join(["[PAD]", "[UNK]", "ä", "日本"]).encode()
    old = {**bert, "README.md": b"# An older one\n"}
    new = {**bert, "README.md": b"# A proposal\n"}
    a, b, c = (commit_of("tiny", x) for x in "abc")
    return {
        "org/tiny-bert": {"commits": {a: bert, b: old, c: new}, "refs": {"main": a, "v1": b, "refs/pr/1": c}},
        "single": {"commits": {commit_of("single"): {"config.json": b"{}\n", "empty.txt": b"", "deep/er/x.bin": b"\0\1\2"}},
                   "refs": {"main": commit_of("single")}},
        "datasets/org/data.set_1": {"commits": {commit_of("data"): {"a b/ü.txt": b"text\n", "data/x.bin": bytes(range(200))}},
                                    "refs": {"main": commit_of("data")}},
    }


def tree_lines(cache):
    lines = []
    for root, dirs, files in os.walk(cache):
        if root == cache and ".locks" in dirs:
            dirs.remove(".locks")
        for name in files + [d for d in dirs if os.path.islink(os.path.join(root, d))]:
            p = os.path.join(root, name)
            rel = os.path.relpath(p, cache)
            if os.path.islink(p):
                lines.append(f"{rel} -> {os.readlink(p)}")
            else:
                lines.append(f"{rel} {hashlib.sha256(open(p, 'rb').read()).hexdigest()[:16]}")
    return sorted(lines, key=lambda s: s.encode())


PYTHON_FILL = """
import sys
from huggingface_hub import snapshot_download, hf_hub_download
from huggingface_hub.utils import EntryNotFoundError
snapshot_download("org/tiny-bert")
snapshot_download("org/tiny-bert", revision="v1", allow_patterns="*.json")
hf_hub_download("org/tiny-bert", "README.md", revision="refs/pr/1")
try:
    hf_hub_download("org/tiny-bert", "pytorch_model.bin")
except EntryNotFoundError:
    pass
snapshot_download("single")
snapshot_download("org/data.set_1", repo_type="dataset")
snapshot_download("org/tiny-bert", local_dir=sys.argv[1])
"""

PUSH = """
import json, sys, urllib.request
from huggingface_hub import HfApi, CommitOperationAdd
api = HfApi(token="hf_test")
for step in json.load(open(sys.argv[1])):
    r = api.create_repo(step["repo"], exist_ok=True, private=step.get("private"))
    if step.get("revision"):
        api.create_branch(repo_id=r.repo_id, branch=step["revision"], exist_ok=True)
    ops = [CommitOperationAdd(path_in_repo=n, path_or_fileobj=sys.argv[2] + "/" + f) for n, f in step["files"].items()]
    api.create_commit(repo_id=r.repo_id, operations=ops, commit_message=step["message"], commit_description=step.get("description"),
                      revision=step.get("revision"), create_pr=step.get("create_pr", False))
    api.whoami = None
    urllib.request.urlopen(urllib.request.Request(api.endpoint + "/api/verify/step", method="POST", data=b""))  # the end of a step
"""


def push_steps(out):
    """Commits to make, of files in OUT/files."""
    files = {"config.json": b"{}", "README.md": b"---\ntags:\n- a\n---\n# A\n", "empty.txt": b"", "empty.bin": b"", "sub/x.txt": "ä".encode(),
             "small.bin": bytes(range(50)), "model.safetensors": bytes(i * 7 % 256 for i in range(1234)), "a.ignored": b"no", "quote\"<>&.txt": b"x"}
    second = {**files, "README.md": b"# B\n", "small.bin": b"another"}
    third = {**second, "config.json": b"{ }"}
    steps = [
        {"repo": "org/pushed", "files": files, "message": "First <&>", "description": "Two\nlines"},
        {"repo": "org/pushed", "files": second, "message": "Second"},
        {"repo": "org/pushed", "files": second, "message": "Nothing"},
        {"repo": "org/pushed", "files": third, "message": "A proposal", "create_pr": True},
        {"repo": "org/pushed", "files": third, "message": "A branch", "revision": "feature/x"},
        {"repo": "alone", "files": {"a.txt": b"a"}, "message": "Mine", "private": True},
    ]
    for s in steps:
        named = {}
        for name, data in s["files"].items():
            named[name] = hashlib.sha256(data).hexdigest()[:12]
            open(os.path.join(out, "files", named[name]), "wb").write(data)
        s["files"] = named
    return steps


JUDGE = """
import hashlib, json, os, sys
import torch
from huggingface_hub import (snapshot_download, hf_hub_download, try_to_load_from_cache, scan_cache_dir, get_cached_repo_tree, _CACHED_NO_EXIST)
from huggingface_hub.errors import IncompleteSnapshotError, LocalEntryNotFoundError
from transformers import AutoModel, BertModel
repos, files = json.load(open(sys.argv[1] + "/repos.json")), sys.argv[1] + "/files/"
checks = {}

def same(dir, path, commit, names=None):
    want = repos[path]["commits"][commit]
    return all(open(os.path.join(dir, n), "rb").read() == open(files + f, "rb").read() for n, f in want.items() if names is None or n in names)

tiny = repos["org/tiny-bert"]["refs"]
d = snapshot_download("org/tiny-bert", local_files_only=True)
checks["snapshot_download"] = same(d, "org/tiny-bert", tiny["main"])
checks["snapshot_download of a commit"] = snapshot_download("org/tiny-bert", revision=tiny["main"], local_files_only=True) == d
d1 = snapshot_download("org/tiny-bert", revision="v1", allow_patterns="*.json", local_files_only=True)
checks["snapshot_download of a part"] = same(d1, "org/tiny-bert", tiny["v1"], ["config.json"])
try:
    snapshot_download("org/tiny-bert", revision="v1", local_files_only=True)
    checks["half a snapshot is known to be half"] = False
except IncompleteSnapshotError:
    checks["half a snapshot is known to be half"] = True
p = hf_hub_download("org/tiny-bert", "README.md", revision="refs/pr/1", local_files_only=True)
checks["hf_hub_download of a pull request"] = open(p).read() == "# A proposal\\n"
try:
    hf_hub_download("org/tiny-bert", "config.json", revision="refs/pr/1", local_files_only=True)
    checks["what is not there is not there"] = False
except LocalEntryNotFoundError:
    checks["what is not there is not there"] = True
checks["known not to exist"] = try_to_load_from_cache("org/tiny-bert", "pytorch_model.bin") is _CACHED_NO_EXIST
d = snapshot_download("single", local_files_only=True)
checks["a name without organisation"] = same(d, "single", repos["single"]["refs"]["main"])
d = snapshot_download("org/data.set_1", repo_type="dataset", local_files_only=True)
checks["a dataset"] = same(d, "datasets/org/data.set_1", repos["datasets/org/data.set_1"]["refs"]["main"])
checks["list of files"] = sorted(f.path for f in get_cached_repo_tree("org/tiny-bert")) == sorted(repos["org/tiny-bert"]["commits"][tiny["main"]])
info = scan_cache_dir()
checks["scan_cache_dir: no warnings"] = not info.warnings
checks["scan_cache_dir: nothing incomplete"] = not info.incomplete_files
checks["scan_cache_dir: repositories"] = sorted((r.repo_type, r.repo_id, len(r.revisions), sorted(x for v in r.revisions for x in v.refs)) for r in info.repos) == [
    ("dataset", "org/data.set_1", 1, ["main"]), ("model", "org/tiny-bert", 3, ["main", "refs/pr/1", "v1"]), ("model", "single", 1, ["main"])]
m, loading = AutoModel.from_pretrained("org/tiny-bert", output_loading_info=True)
checks["transformers loads it"] = type(m) is BertModel and not any(loading.values())
with open(sys.argv[1] + "/files/" + repos["org/tiny-bert"]["commits"][tiny["main"]]["model.safetensors"], "rb") as f:
    from safetensors.torch import load
    want = load(f.read())
checks["the same tensors"] = all(torch.equal(m.state_dict()[k], v) for k, v in want.items()) and len(want) > 20
m = AutoModel.from_pretrained("org/tiny-bert", revision=tiny["main"], local_files_only=True)
checks["by commit"] = type(m) is BertModel
json.dump(checks, open(sys.argv[2], "w"))
"""

ONLINE = """
from huggingface_hub import snapshot_download
snapshot_download("org/tiny-bert")
snapshot_download("single")
"""


def rules():
    from huggingface_hub.utils import validate_repo_id, HFValidationError, filter_repo_objects
    from huggingface_hub._local_folder import _validate_relative_filename

    def fine(f, s):
        try:
            f(s)
            return True
        except (ValueError, HFValidationError):
            return False

    rng = random.Random(5)
    words = ["a", "ab", "a-b", "a.b", "a_b", "-", ".", "..", "--", "a-", "-a", ".a", "a.", "_", "a.git", "A1", "é", " ", "a b", "", "\n", "a" * 96, "a" * 97, "a--b", "a..b"]
    ids = sorted({w for w in words} | {f"{x}/{y}" for x in words for y in words} | {"a/b/c", "/", "//", "datasets/a/b"})
    parts = ["a", "..", ".", "a.txt", "C:", "C:a", "c:\\x", "\\", "\\\\host\\share", "...", "..a", "a..", "b b", "ü", "a:b", "\\a", "a\\..\\b", "CON"]
    names = sorted({p for p in parts} | {f"{x}/{y}" for x in parts for y in parts} | {"/" + p for p in parts} | {"//a/b", "/", "a/b/../c"})
    alphabet = "ab*?[]!-^c/."
    patterns = ["*", "*.json", "a/*", "a/", "?", "[abc]", "[!abc]", "[a-c]", "[]a]", "[!]a]", "[a-", "[", "]", "[]", "[!]", "[!", "**/x", "*[*]*", "[c-a]b", "[a-c-b]", "[-a]", "[a-]", "[^a]", "a\\b", "\\", "[\\]"]
    patterns += ["".join(rng.choice(alphabet) for _ in range(rng.randint(1, 7))) for _ in range(400)]
    texts = ["a", "b", "c", "ab", "abc", "a/b", "a/b.json", "x.json", "a\\b", "[", "]", "-", "!", "^", "a-", "*", ".", "a.b", "", "aa/bb/cc", "b]", "[]", "d", "\\", "ca", "a\nb"]
    texts += ["".join(rng.choice(alphabet) for _ in range(rng.randint(1, 5))) for _ in range(60)]
    matches = {}
    for p in patterns:
        matches[p] = "".join("1" if list(filter_repo_objects([t], allow_patterns=[p])) else "0" for t in texts)
    return {"ids": {i: fine(validate_repo_id, i) for i in ids}, "names": {n: fine(_validate_relative_filename, n) for n in names},
            "texts": texts, "patterns": matches}


def main(out):
    out = os.path.abspath(out)
    shutil.rmtree(out, ignore_errors=True)
    os.makedirs(os.path.join(out, "files"))
    repos = repositories()
    index = {}
    for path, r in repos.items():
        commits = {}
        for commit, files in r["commits"].items():
            commits[commit] = {}
            for name, data in files.items():
                f = hashlib.sha256(data).hexdigest()[:12]
                open(os.path.join(out, "files", f), "wb").write(data)
                commits[commit][name] = f
        index[path] = {"commits": commits, "refs": r["refs"]}
    json.dump(index, open(os.path.join(out, "repos.json"), "w"), indent=1, sort_keys=True)
    json.dump(rules(), open(os.path.join(out, "rules.json"), "w"), indent=0)

    hub = Hub(repos)
    base = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))}
    with tempfile.TemporaryDirectory() as tmp:
        def run(code, cache, *args, offline=False):
            env = {**base, "HF_HOME": os.path.join(tmp, "home"), "HF_HUB_CACHE": cache, "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_TELEMETRY": "1",
                   "HF_HUB_DISABLE_UPDATE_CHECK": "1", "DISABLE_SAFETENSORS_CONVERSION": "1"}
            if offline:
                env["HF_HUB_OFFLINE"] = "1"
            subprocess.run([sys.executable, "-c", code, *args], env=env, check=True)

        # 1. Python fills.
        python, local = os.path.join(tmp, "python"), os.path.join(tmp, "local")
        run(PYTHON_FILL, python, local)
        links = {}
        for name, source in (("python-cache", python), ("python-local", local)):
            for line in tree_lines(source):
                if " -> " in line:
                    rel, target = line.split(" -> ", 1)
                    links[f"{name}/{rel}"] = target
                else:
                    rel = line.rsplit(" ", 1)[0]
                    if rel.endswith(".lock"):
                        continue
                    to = os.path.join(out, name, rel)
                    os.makedirs(os.path.dirname(to), exist_ok=True)
                    shutil.copyfile(os.path.join(source, rel), to)
        json.dump(links, open(os.path.join(out, "links.json"), "w"), indent=1, sort_keys=True)

        # Python pushes: what it sends, step by step.
        steps = push_steps(out)
        json.dump(steps, open(os.path.join(out, "push.json"), "w"), indent=1)
        env = dict(base)
        base["HF_HUB_DISABLE_XET"] = "1"
        run(PUSH, python + "-push", os.path.join(out, "push.json"), os.path.join(out, "files"))
        base = env
        at = 0
        for p in hub.pushes:
            if p["path"] == "/api/verify/step":
                at += 1
                continue
            steps[at].setdefault("requests", []).append(p)
        json.dump(steps, open(os.path.join(out, "push.json"), "w"), indent=1)

        # 2. torchgo fills, Python judges.
        ours, report = os.path.join(tmp, "ours"), os.path.join(tmp, "report.json")
        subprocess.run(GO_TEST, env={**base, "HUB_REF_URL": hub.url, "HUB_REF_CACHE": ours}, check=True)
        lines = tree_lines(ours)
        before = len(hub.requests)
        run(JUDGE, ours, out, report, offline=True)
        checks = json.load(open(report))
        checks["offline: no request"] = len(hub.requests) == before
        run(ONLINE, ours)
        later = [p for _, p in hub.requests[before:]]
        checks["online: Python downloads nothing again"] = len(later) == 2 and all("/revision/main" in p for p in later)
        checks["Python changed nothing"] = tree_lines(ours) == lines
        import huggingface_hub, transformers
        verdict = {"huggingface_hub": huggingface_hub.__version__, "transformers": transformers.__version__, "checks": checks,
                   "digest": hashlib.sha256("\n".join(lines).encode()).hexdigest(), "tree": lines}
        json.dump(verdict, open(os.path.join(out, "verdict.json"), "w"), indent=1)
        for name, ok in checks.items():
            print("ok  " if ok else "FAIL", name)
        sys.exit(0 if all(checks.values()) else 1)


if __name__ == "__main__":
    main(sys.argv[1])
