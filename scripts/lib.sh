# What every script needs: where things are, and installing what is missing. Sourced, not run.
# Everything that is installed or downloaded lives in $DEV, outside the repository; packages of the system come by apt.
# Commands run through `run` show themselves first.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
HOME=${HOME:-$(cd ~ && pwd)}
DEV=${MEDIAFS_DEV:-${XDG_CACHE_HOME:-$HOME/.cache}/mediafs-dev}
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
MINIO_VERSION=v0.0.0-20260212201848-7aac2a2c5b7c
DENY_VERSION=0.20.2
CARGO_DEB_VERSION=3.8.0
TOXIPROXY_VERSION=v2.5.0
FSX_VERSION=0.3.2
XFSTESTS_COMMIT=63a29724a85f1999e49bf0a9bf0d22643b6116e5
XFSTESTS_ADDRESSES=(https://git.kernel.org/pub/scm/fs/xfs/xfstests-dev.git https://github.com/kdave/xfstests.git)
MUSL_TARGET=$(uname -m)-unknown-linux-musl
DJANGO_VERSION=$(sed -n 's/^Django==//p' "$ROOT/tests/requirements.txt")
DJANGO_SOURCES=$DEV/django-$DJANGO_VERSION
PYTHON=$DEV/venv/bin/python
RUST_MINOR=$(sed -n 's/^rust-version = "1\.\([0-9]*\)"/\1/p' "$ROOT/Cargo.toml")
mkdir -p "$DEV/bin"
export PATH="$DEV/bin:$HOME/.cargo/bin:/usr/local/go/bin:$PATH"
export PYTHONDONTWRITEBYTECODE=1

# Nothing of the caller's own buckets, options and proxies reaches a test: every store is on this machine.
for name in "${!AWS_@}" "${!R2_@}" "${!MEDIAFS_@}"; do
  case $name in MEDIAFS_DEV | MEDIAFS_TEST_*) ;; *) unset "$name" ;; esac
done
export no_proxy=127.0.0.1,localhost${no_proxy:+,$no_proxy}
export NO_PROXY=$no_proxy

say() { printf '== %s\n' "$*" >&2; }
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}
run() {
  printf '+ %s\n' "$*" >&2
  "$@"
}
have() { command -v "$1" >/dev/null 2>&1; }

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; elif have sudo; then sudo "$@"; else die "needs root or sudo for: $*"; fi
}

# A new machine updates itself in its first minutes: wait for that.
APT_OPTIONS=(-y -qq -o DPkg::Lock::Timeout=300)

# apt_install PACKAGE ...
apt_install() {
  have apt-get || die "install these packages first: $*"
  say "installing $*"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get "${APT_OPTIONS[@]}" install "$@" >/dev/null 2>&1 && return
  as_root apt-get "${APT_OPTIONS[@]}" update >/dev/null || true
  as_root env DEBIAN_FRONTEND=noninteractive apt-get "${APT_OPTIONS[@]}" install "$@" >/dev/null || die "apt could not install: $*"
}

# The toolchain: cargo, and a C compiler for SQLite and ring.
need_rust() {
  local advice="install Rust 1.$RUST_MINOR or newer: curl --proto =https --tlsv1.2 -sSf https://sh.rustup.rs | sh"
  have cargo || die "cargo is missing; $advice"
  local version minor
  version=$(rustc --version 2>/dev/null) || die "rustc does not run; $advice, or: rustup default stable"
  minor=${version#rustc 1.}
  [ "${minor%%.*}" -ge "$RUST_MINOR" ] || die "$version is too old; $advice, or: rustup update stable"
  have cc || apt_install gcc libc6-dev
}

need_fuse() {
  [ -e /dev/fuse ] || (as_root modprobe fuse) 2>/dev/null || true
  [ -e /dev/fuse ] || die "/dev/fuse is missing: this kernel or container has no FUSE (docker run --device /dev/fuse --cap-add SYS_ADMIN)"
  have fusermount3 || [ "$(id -u)" -eq 0 ] || apt_install fuse3
}

# The virtual environment with Django, Pillow and boto3, again when the versions change.
need_python() {
  local wanted=$ROOT/tests/requirements.txt
  cmp -s "$wanted" "$DEV/venv/requirements.txt" && return
  have python3 || apt_install python3
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "python3 is older than 3.11"
  say "a virtual environment with $(tr '\n' ' ' < <(grep -v '^#' "$wanted"))"
  rm -rf "$DEV/venv"
  if ! python3 -m venv "$DEV/venv" >/dev/null 2>&1; then
    apt_install python3-venv
    python3 -m venv --clear "$DEV/venv"
  fi
  "$DEV/venv/bin/pip" install -q --disable-pip-version-check -r "$wanted" || die "pip could not install $wanted"
  cp "$wanted" "$DEV/venv/requirements.txt"
}

# Django's sources with its tests, as its own source distribution.
need_django_sources() {
  [ -d "$DJANGO_SOURCES/tests" ] && return
  say "Django's own tests, $DJANGO_VERSION"
  local load
  load=$(mktemp -d)
  "$DEV/venv/bin/pip" download -q --disable-pip-version-check --no-deps --no-binary :all: -d "$load" "Django==$DJANGO_VERSION"
  tar -xzf "$load"/[dD]jango-"$DJANGO_VERSION".tar.gz -C "$DEV"
  rm -rf "$load"
}

need_minio() {
  local found
  for found in "${MINIO:-}" "$DEV/bin/minio" "$(command -v minio || true)" "$HOME/go/bin/minio"; do
    [ -n "$found" ] && [ -x "$found" ] && export MINIO=$found && return
  done
  have go || apt_install golang-go
  say "MinIO, from its sources: a few minutes"
  GOBIN=$DEV/bin GOTOOLCHAIN=${GOTOOLCHAIN:-auto} go install "github.com/minio/minio@$MINIO_VERSION" ||
    die "MinIO could not be built: it needs a current Go; or set MINIO to the path of a minio binary"
  export MINIO=$DEV/bin/minio
}

need_toxiproxy() {
  local found build
  for found in "${TOXIPROXY:-}" "$DEV/bin/toxiproxy-server" "$(command -v toxiproxy-server || true)"; do
    [ -n "$found" ] && [ -x "$found" ] && export TOXIPROXY=$found && return
  done
  have go || apt_install golang-go
  say "toxiproxy $TOXIPROXY_VERSION, from its sources"
  # Its program is called `server`.
  build=$(mktemp -d)
  GOBIN=$build GOTOOLCHAIN=${GOTOOLCHAIN:-auto} go install "github.com/Shopify/toxiproxy/v2/cmd/server@$TOXIPROXY_VERSION" ||
    die "toxiproxy could not be built: it needs a current Go; or set TOXIPROXY to the path of a toxiproxy-server binary"
  mv "$build/server" "$DEV/bin/toxiproxy-server"
  rm -rf "$build"
  export TOXIPROXY=$DEV/bin/toxiproxy-server
}

need_fsx() {
  local found
  for found in "${FSX:-}" "$DEV/bin/fsx"; do
    [ -n "$found" ] && [ -x "$found" ] && export FSX=$found && return
  done
  need_rust
  say "fsx $FSX_VERSION, from its sources"
  cargo install -q --locked --root "$DEV" --target-dir "$DEV/build-fsx" "fsx@$FSX_VERSION" && rm -rf "$DEV/build-fsx"
  export FSX=$DEV/bin/fsx
}

# What pjdfstest's scripts call; prove isn't among it.
need_pjdfstest() {
  have cc || apt_install gcc libc6-dev
  have openssl || apt_install openssl
}

# xfstests, built in a folder of its own. False where its sources can't be had: a suite that is fetched from the network
# can't fail for that.
need_xfstests() {
  export MEDIAFS_TEST_XFSTESTS=$DEV/xfstests-$XFSTESTS_COMMIT
  [ -e "$MEDIAFS_TEST_XFSTESTS/built" ] && return
  local address sources=$DEV/xfstests-sources
  say "xfstests, from its sources: a few minutes"
  rm -rf "$sources" "$MEDIAFS_TEST_XFSTESTS"
  git init -q --bare "$sources"
  for address in "${XFSTESTS_ADDRESSES[@]}"; do
    # Behind some firewalls there is no answer, not even a refusal.
    timeout 120 git -C "$sources" fetch -q --depth 1 "$address" "$XFSTESTS_COMMIT" && break
  done
  git -C "$sources" cat-file -e "$XFSTESTS_COMMIT" 2>/dev/null || return
  need_packages xfs_io:xfsprogs automake libtoolize:libtool libtool:libtool-bin autoconf pkg-config make bc gawk getfattr:attr \
    setfacl:acl quota fio killall:psmisc uuidgen:uuid-runtime perl unshare:util-linux
  local header
  for header in xfs/xfs.h:xfslibs-dev uuid/uuid.h:uuid-dev sys/acl.h:libacl1-dev attr/attributes.h:libattr1-dev libaio.h:libaio-dev sys/capability.h:libcap-dev; do
    [ -e "/usr/include/${header%%:*}" ] || apt_install "${header##*:}"
  done
  mkdir "$MEDIAFS_TEST_XFSTESTS"
  git -C "$sources" archive "$XFSTESTS_COMMIT" | tar -x -C "$MEDIAFS_TEST_XFSTESTS"
  rm -rf "$sources"
  # What `df` calls our type is `fuse` to it, as it has it for other types with a second half.
  sed -i 's|s/fuse.ceph-fuse/ceph-fuse/|&;s/fuse.mediafs/fuse/|' "$MEDIAFS_TEST_XFSTESTS/common/rc"
  (cd "$MEDIAFS_TEST_XFSTESTS" && make -j"$(nproc)" >build.log 2>&1 && touch built) || die "xfstests does not build: $MEDIAFS_TEST_XFSTESTS/build.log"
}

# need_packages PROGRAM[:PACKAGE] ...
need_packages() {
  local pair missing=()
  for pair; do have "${pair%%:*}" || missing+=("${pair##*:}"); done
  [ ${#missing[@]} -eq 0 ] || apt_install "${missing[@]}"
}

# A C library that programs can hold whole: Rust's part of it, and the compiler for what is written in C (SQLite, and the
# cryptography under TLS). Fails where one can't be had.
need_musl() {
  rustup target list --installed | grep -qx "$MUSL_TARGET" || run rustup target add "$MUSL_TARGET" >&2 || return
  # In a shell of its own: where it can't be installed, that one ends.
  (need_packages musl-gcc:musl-tools)
}

# What else mounts buckets. An rclone in $DEV/bin, newer than the distribution's, goes before that.
need_interop() {
  local missing=()
  have s3fs || missing+=(s3fs)
  have rclone || missing+=(rclone)
  [ "${#missing[@]}" -eq 0 ] || apt_install "${missing[@]}"
}

# Python's own tests, which distributions pack apart from it.
need_python_tests() {
  need_python
  "$PYTHON" -c 'import test.test_os' 2>/dev/null && return
  apt_install "lib$("$PYTHON" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')-testsuite"
}

# What tests/programs runs. Without one of them its tests are skipped, which the summary counts.
need_programs() {
  need_python
  local pair missing=()
  for pair in rsync git ffmpeg zip unzip sqlite3 patch vim xz:xz-utils; do
    have "${pair%%:*}" || missing+=("${pair##*:}")
  done
  [ ${#missing[@]} -eq 0 ] || (apt_install --no-install-recommends "${missing[@]}") || say "skipped will be what needs: ${missing[*]}"
  need_nginx
}

# Its package is unpacked, not installed: that would start a web server on this machine.
need_nginx() {
  export MEDIAFS_TEST_NGINX=$DEV/nginx/usr/sbin/nginx
  have nginx || [ -x /usr/sbin/nginx ] || [ -x "$MEDIAFS_TEST_NGINX" ] && return
  say "nginx, unpacked into $DEV/nginx"
  local load
  load=$(mktemp -d)
  (cd "$load" && { apt-get download -qq nginx || { as_root apt-get "${APT_OPTIONS[@]}" update >/dev/null; apt-get download -qq nginx; }; } &&
    dpkg -x nginx_*.deb "$DEV/nginx") >/dev/null 2>&1 || say "skipped will be what needs nginx: its package can't be had"
  rm -rf "$load"
}

# cargo-deny, built without optimisation: a minute instead of ten, and fast enough for one tree.
need_deny() {
  have cargo-deny && return
  say "cargo-deny $DENY_VERSION: a minute or two"
  CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
    cargo install -q --locked --root "$DEV" --target-dir "$DEV/build" "cargo-deny@$DENY_VERSION" && rm -rf "$DEV/build"
}

# cargo-deb, built like cargo-deny.
need_cargo_deb() {
  have cargo-deb && return
  need_rust
  say "cargo-deb $CARGO_DEB_VERSION: a minute or two"
  CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
    cargo install -q --locked --root "$DEV" --target-dir "$DEV/build-deb" "cargo-deb@$CARGO_DEB_VERSION" && rm -rf "$DEV/build-deb"
}

# A Debian 12 with systemd, for the package. False where it can't be had: only root makes one, and its packages come by network.
need_debian() {
  export MEDIAFS_TEST_DEBIAN=$DEV/debian-12
  [ -e "$MEDIAFS_TEST_DEBIAN/usr/bin/systemctl" ] && return
  [ "$(id -u)" -eq 0 ] || return
  have debootstrap || apt_install debootstrap
  say "a Debian 12 of its own: a few minutes"
  local load=$DEV/debian-12.new
  rm -rf --one-file-system "$load"
  timeout 300 debootstrap --variant=minbase --include=systemd,systemd-sysv,fuse3,ca-certificates,procps bookworm "$load" \
    http://deb.debian.org/debian >"$DEV/debootstrap.log" 2>&1 || return
  rm -rf "$load"/var/cache/apt/archives/*.deb
  mv "$load" "$MEDIAFS_TEST_DEBIAN"
}

# gunicorn and what the example is compared with, into the same virtual environment; nginx and a browser.
need_example() {
  need_python
  cat "$ROOT/scripts/example/requirements.txt" "$ROOT/tests/example/requirements.txt" | cmp -s - "$DEV/venv/example.txt" || {
    "$DEV/venv/bin/pip" install -q --disable-pip-version-check -r "$ROOT/scripts/example/requirements.txt" -r "$ROOT/tests/example/requirements.txt" ||
      die "pip could not install what the example needs"
    cat "$ROOT/scripts/example/requirements.txt" "$ROOT/tests/example/requirements.txt" >"$DEV/venv/example.txt"
  }
  have rsync || (apt_install rsync) || say "skipped will be what needs rsync"
  need_nginx
  need_browser
}

need_browser() {
  have chromium && have chromedriver && return
  (apt_install --no-install-recommends chromium chromium-driver) || say "skipped will be what needs a browser: chromium can't be had"
}

# Builds the program that the suites run and names it in $MEDIAFS; where that is set already, it names the one to test.
build_release() {
  if [ -n "${MEDIAFS:-}" ]; then return; fi
  need_rust
  say "building mediafs: several minutes the first time"
  (cd "$ROOT" && run cargo build --release --locked --bin mediafs)
  export MEDIAFS=$TARGET/release/mediafs
}

# Detaches every mount in a folder, whatever state it is in; the innermost first.
detach_below() {
  local point
  awk -v top="$1/" 'index($2 "/", top) == 1 {print $2}' /proc/self/mounts | sort -r | while read -r point; do
    umount -l "$point" 2>/dev/null || fusermount3 -u -z "$point" 2>/dev/null || true
  done
}
