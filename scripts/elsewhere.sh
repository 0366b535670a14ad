#!/usr/bin/env bash
# elsewhere.sh VERSION [PACKAGES] -- COMMAND...: runs a command in a Debian that has this Python (3.13 or 3.14), in a mount
# namespace of its own. The Debian and its virtual environment are made once, below $XDG_CACHE_HOME/daskpki or
# ~/.cache/daskpki; PACKAGES is a file that names Debian packages to have in it. Needs root, debootstrap and apt's lists.
# Inside, the repository stands at the same path, with another .venv.
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
case ${1-} in
  3.13) suite=trixie ;;
  3.14) suite=sid ;;
  *) echo "--python wants 3.13 or 3.14, which Debian has, and not '${1-}'" >&2 && exit 2 ;;
esac
version=$1
packages=
[ "$2" = -- ] || { packages=$repository/$2 && shift; }
shift 2

if [ "$(id -u)" != 0 ] || ! command -v debootstrap >/dev/null; then
  echo "another Python runs in a chroot: this needs root and debootstrap (on Debian: apt install debootstrap)" >&2
  exit 1
fi
here=${XDG_CACHE_HOME:-$HOME/.cache}/daskpki/python-$version
root=$here/root
venv=$here/venv-$(printf %s "$repository" | sha256sum | cut -c1-12) # it is installed for one checkout
mkdir -p "$venv" "$repository/.venv"
exec 9>"$here/lock"
flock 9 # two runs share it, and one of them makes it

if [ ! -e "$here/made" ]; then
  # The mirror is the one that apt uses here.
  # shellcheck disable=SC2016 # apt fills it in
  mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Label: Debian' | head -n 1)
  [ -n "$mirror" ] || { echo "apt names no mirror of Debian: run apt-get update, or add one to its sources" >&2 && exit 1; }
  echo "making a Debian $suite with Python $version in $root ..." >&2
  rm -rf --one-file-system "$root"
  debootstrap --variant=minbase --include=ca-certificates,git,openssl,procps,python3,python3-venv "$suite" "$root" "$mirror" >"$here/log" ||
    { tail -n 20 "$here/log" >&2 && exit 1; }
  touch "$here/made"
fi
chroot "$root" python3 -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$version')" ||
  { echo "Debian $suite has another Python than $version by now: $(chroot "$root" python3 -V)" >&2 && exit 1; }

export here root venv repository packages
# shellcheck disable=SC2016 # the inner shell has the variables
exec unshare --mount --propagation private bash -euc '
  mount --rbind "$root" "$root"
  for path in /proc /sys /dev /tmp /etc/resolv.conf /etc/hosts /etc/ssl/certs; do mount --rbind "$path" "$root$path"; done
  # In a worktree, the repository of git lies elsewhere.
  for path in "$repository" "$(git -C "$repository" rev-parse --path-format=absolute --git-common-dir)"; do
    mkdir -p "$root$path" && mount --bind "$path" "$root$path"
  done
  mount --bind "$venv" "$root$repository/.venv"
  if [ -n "$packages" ] && ! cmp -s "$packages" "$here/packages"; then
    export DEBIAN_FRONTEND=noninteractive
    # A mirror of sid may lag behind its date; the signature is looked at all the same.
    chroot "$root" apt-get update -qq -o Acquire::Check-Valid-Until=false
    grep -v "^#" "$packages" | xargs chroot "$root" apt-get install -y -qq --no-install-recommends >"$here/log" 2>&1 ||
      { tail -n 20 "$here/log" >&2 && exit 1; }
    cp "$packages" "$here/packages"
  fi
  exec 9>&-
  # The tests make namespaces, which a mere chroot may not.
  cd "$root" && pivot_root . . && umount -l .
  exec chroot . env -u VIRTUAL_ENV -u PYTHON -u PIP_FIND_LINKS HOME=/root TMPDIR=/tmp \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin bash -c "cd \"\$0\" && exec \"\$@\"" "$repository" "$@"
' bash "$@"
