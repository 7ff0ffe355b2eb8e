#!/usr/bin/env bash
# Runs all tests and checks: ./test.sh
#
# It needs Go and nothing else on Debian as root: what the tests use and is not there is installed. Elsewhere it says what to
# install. What could not be run is listed at the end; with CI=true that is a failure, but for govulncheck, whose database
# cannot be reached from everywhere.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
exec </dev/null

ci=${CI:-}
tmp=$(mktemp -d)
not_run=()  # what could not be run and why
optional=() # of that, what CI does without
section=start
race=-race
fuzz_budget=90 # seconds for all fuzz targets together

bold='' red='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m' red=$'\e[31m' plain=$'\e[0m'; fi

heading() {
	section=$1
	printf '\n%s== %s%s\n' "$bold" "$1" "$plain"
}

fail() {
	printf '%stest.sh: %s%s\n' "$red" "$1" "$plain" >&2
	exit 1
}

finish() {
	local status=$?
	rm -rf "$tmp"
	if [ "$status" -ne 0 ]; then printf '%stest.sh: failed in: %s%s\n' "$red" "$section" "$plain" >&2; fi
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The programs that tests need, each with how to find it and the Debian packages that have it.
has() {
	case $1 in
	"a C compiler") command -v gcc >/dev/null && [ -e /usr/include/stdlib.h ] ;;
	Chromium) command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null ;;
	fonts) [ -n "$(find /usr/share/fonts /usr/local/share/fonts -name '*.ttf' -print -quit 2>/dev/null)" ] ;;
	Redis) command -v redis-server >/dev/null && command -v redis-cli >/dev/null ;;
	promtool) command -v promtool >/dev/null ;;
	"nginx, HAProxy and Caddy") command -v nginx >/dev/null && command -v haproxy >/dev/null && command -v caddy >/dev/null ;;
	npm) command -v npm >/dev/null && command -v node >/dev/null ;;
	"Python with Flask, PyJWT and cryptography") /usr/bin/python3 -c 'import flask, jwt, cryptography' 2>/dev/null ;;
	"PHP with APCu") php -d apc.enable_cli=1 -r 'exit(extension_loaded("openssl") && apcu_enabled() ? 0 : 1);' >/dev/null 2>&1 ;;
	esac
}
packages_of() {
	case $1 in
	"a C compiler") echo gcc libc6-dev ;;
	Chromium) echo chromium ;;
	fonts) echo fonts-dejavu-core ;;
	Redis) echo redis-server redis-tools ;;
	promtool) echo prometheus ;;
	"nginx, HAProxy and Caddy") echo nginx-light haproxy caddy ;;
	npm) echo nodejs npm ;;
	"Python with Flask, PyJWT and cryptography") echo python3-flask python3-jwt python3-cryptography ;;
	"PHP with APCu") echo php-cli php-apcu ;;
	esac
}
needs=("a C compiler" Redis promtool "nginx, HAProxy and Caddy" Chromium fonts npm "Python with Flask, PyJWT and cryptography" "PHP with APCu")

heading "What the tests need"
command -v go >/dev/null || fail "there is no go: install Go 1.26 or later, see https://go.dev/doc/install"
go version
missing=()
for need in "${needs[@]}"; do
	if ! has "$need"; then
		echo "missing: $need"
		# shellcheck disable=SC2207 # names of packages have no blanks
		missing+=($(packages_of "$need"))
	fi
done
if [ ${#missing[@]} -gt 0 ]; then
	if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
		echo "installing ${missing[*]}"
		export DEBIAN_FRONTEND=noninteractive
		if ! { apt-get -q update && apt-get -qy install --no-install-recommends "${missing[@]}"; } >"$tmp/apt" 2>&1; then
			tail -n 20 "$tmp/apt"
			echo "not everything could be installed"
		fi
	else
		echo "to install it on Debian: sudo apt-get install ${missing[*]}"
	fi
fi
for need in "${needs[@]}"; do
	has "$need" || echo "still missing: $need"
done

heading "Formatting"
unformatted=$(find . -name '*.go' -not -path '*/node_modules/*' -print0 | xargs -0 gofmt -l)
[ -z "$unformatted" ] || fail "gofmt would change: $unformatted"
echo "gofmt has nothing to change"

# Modules: this one, and those below it that keep their dependencies to themselves.
mapfile -t modules < <(find . -name go.mod -not -path '*/node_modules/*' -not -path '*/testdata/*' -printf '%h\n' | sort)

heading "go vet"
for module in "${modules[@]}"; do
	(cd "$module" && go vet ./...) || fail "go vet complains about $module"
done
echo "nothing to say about ${modules[*]}"

heading "staticcheck"
(cd tools && go build -o "$tmp/" tool && go build -o "$tmp/testjson" ./testjson) || fail "the tools cannot be built"
for module in "${modules[@]}"; do
	(cd "$module" && "$tmp/staticcheck" ./...) || fail "staticcheck complains about $module"
done
echo "nothing to say about ${modules[*]}"

# node_packages DIRECTORY: installs the packages of its package-lock.json.
node_packages() {
	if ! [ "$1/node_modules/.package-lock.json" -nt "$1/package-lock.json" ]; then
		(cd "$1" && npm ci --no-audit --no-fund --loglevel=error) || fail "npm ci failed in $1"
	fi
}

# tests DIRECTORY FLAG-OR-PACKAGE...: runs go test there; its lines about packages come again at the end.
tests() {
	local dir=$1 status=0
	shift
	(cd "$dir" && go test -json "$@") 2>&1 | "$tmp/testjson" -skipped "$tmp/skipped" | tee "$tmp/lines" || status=$?
	grep '^ok  ' "$tmp/lines" >>"$tmp/ok" || true
	while read -r line; do not_run+=("$line"); done <"$tmp/skipped"
	[ "$status" -eq 0 ] || fail "go test failed in $dir"
}

heading "Tests"
if ! has "a C compiler"; then
	race=
	not_run+=("the race detector: there is no C compiler (gcc, libc6-dev)")
fi
mapfile -t packages < <(go list ./...)
# without NEED PACKAGE: leaves a package out when what it needs is not there.
without() {
	has "$1" && return
	mapfile -t packages < <(printf '%s\n' "${packages[@]}" | grep -v "/$2\$")
	not_run+=("$2: there is no $1")
}
without "Python with Flask, PyJWT and cryptography" examples/flask
without "PHP with APCu" examples/php
without npm examples/express
if has npm; then node_packages examples/express; fi
without Redis session
tests . $race -shuffle=on -timeout 8m "${packages[@]}"

for module in "${modules[@]}"; do
	detector=$race
	case $module in
	. | ./e2e) continue ;;
	./deploy/*) detector= ;; # they share nothing among goroutines, and Helm is too large to be compiled twice
	esac
	heading "Tests in $module"
	tests "$module" $detector -shuffle=on -timeout 8m ./...
done

heading "Tests with a browser and a foreign provider"
if ! has Chromium || ! has npm || ! has "a C compiler"; then
	not_run+=("e2e: it needs Chromium, npm and gcc")
else
	node_packages e2e
	tests e2e -count=1 -timeout 8m ./...
fi

heading "Fuzzing"
mapfile -t targets < <(grep -rHoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . | grep -v node_modules | sed -E 's|/[^/]*:func | |' | sort)
[ ${#targets[@]} -gt 0 ] || fail "no fuzz target was found"
seconds=$((fuzz_budget / ${#targets[@]}))
seconds=$((seconds > 5 ? 5 : seconds < 1 ? 1 : seconds))
for target in "${targets[@]}"; do
	dir=${target% *} name=${target#* }
	printf '%-60s ' "$name in ${dir#./}"
	fuzz() { (cd "$dir" && go test -run '^$' -fuzz "^$name\$" -fuzztime "${seconds}s" -fuzzminimizetime 20x .) >"$tmp/fuzz" 2>&1; }
	# Now and then go test takes the end of its time for a failure (golang/go#48591): once more, then.
	if ! fuzz && { grep -q 'Failing input written' "$tmp/fuzz" || ! grep -q 'context deadline exceeded' "$tmp/fuzz" || ! fuzz; }; then
		echo
		cat "$tmp/fuzz"
		fail "fuzzing $name in $dir found something"
	fi
	grep -E '^fuzz: elapsed' "$tmp/fuzz" | tail -n 1 | grep -oE 'execs: [0-9]+' || echo
done

heading "Known vulnerabilities"
if timeout 120 "$tmp/govulncheck" ./... >"$tmp/vulnerabilities" 2>&1; then
	tail -n 3 "$tmp/vulnerabilities"
elif grep -qE 'fetching vulnerabilities|vuln\.go\.dev|no such host|i/o timeout|connection refused' "$tmp/vulnerabilities" && ! grep -q '^Vulnerability #' "$tmp/vulnerabilities"; then
	not_run+=("govulncheck: its database cannot be reached")
	optional+=("govulncheck: its database cannot be reached")
	echo "not run: the database cannot be reached"
else
	cat "$tmp/vulnerabilities"
	fail "govulncheck found something"
fi

heading "Result"
for what in "${not_run[@]}"; do echo "not run: $what"; done
cat "$tmp/ok"
if [ "$ci" = true ] && [ ${#not_run[@]} -gt ${#optional[@]} ]; then
	fail "with CI=true everything must be run"
fi
