# Sourced by the scripts beside it: sees that the system has what a measurement needs, and builds the programs.
# shellcheck shell=sh

# need PROGRAM PACKAGE
need() {
	if ! command -v "$1" >/dev/null; then
		echo "bench: $1 is missing: apt-get install $2" >&2
		exit 1
	fi
}

if ! [ -r /proc/self/stat ]; then
	echo "bench: CPU time is read from /proc, which this system does not have: run it on Linux" >&2
	exit 1
fi
need go golang


# build PROGRAM builds one of the programs here, with what it starts, into $dir, which is deleted in the end.
build() {
	dir=$(mktemp -d)
	trap 'rm -rf "$dir"' EXIT
	trap 'exit 1' INT TERM
	go build -o "$dir/" ./cmd/authproxy ./bench/upstream ./bench/bareproxy "./bench/$1"
}
