#!/usr/bin/env bash
# Keeps a snapshot of the policies in a file, for any program that can read JSON. Needs only bash and curl.
#   POINTSMAN_URL=… POINTSMAN_KEY=pmr_… ./poller.sh snapshot.json [command to run after each change …]
set -uo pipefail
: "${POINTSMAN_URL:?URL of the control plane}" "${POINTSMAN_KEY:?a router key, pmr_…}"
file=${1:?the file to write}
shift
headers=$(mktemp) failures=0
trap 'rm -f "$headers" "$file.new"' EXIT
trap 'exit 0' INT TERM

field() { grep -o "\"$2\": *[^,}]*" "$1" 2>/dev/null | head -n 1 | sed 's/^[^:]*: *//; s/"//g'; }

while :; do
  # The ETag is stored next to its snapshot. The key is passed on standard input, to hide it from `ps`.
  status=$(printf 'Authorization: Bearer %s\n' "$POINTSMAN_KEY" | curl --silent --show-error --max-time 40 \
    --header @- --header "Pointsman-Router: bash-$(hostname)-$$" --header 'Pointsman-Client: example-bash/1' \
    --header 'Prefer: wait=25' --header "If-None-Match: $(cat "$file.etag" 2>/dev/null)" \
    --dump-header "$headers" --output "$file.new" --write-out '%{http_code}' "$POINTSMAN_URL/router/v1/snapshot")
  case $status in
    304) failures=0 ;;
    200)
      failures=0
      if [ "$(field "$file.new" format)" != 1 ] || { [ "$(field "$file.new" epoch)" = "$(field "$file" epoch)" ] &&
        [ "$(field "$file.new" revision)" -lt "$(field "$file" revision)" ]; }; then
        echo "refused: an older revision, or an unknown format" >&2
        sleep 10
        continue
      fi
      mv "$file.new" "$file" # atomic
      sed -n 's/^[Ee][Tt][Aa][Gg]: *//p' "$headers" | tr -d '\r\n' >"$file.etag"
      echo "revision $(field "$file" revision) of $(field "$file" environment)"
      if [ $# -gt 0 ]; then "$@" "$file"; fi ;;
    *) # unreachable, or a wrong key: keep the last file, and retry after a random delay
      echo "poll failed with HTTP $status: $([ -s "$file" ] && echo keeping the last snapshot || echo there is none yet)" >&2
      failures=$((failures < 6 ? failures + 1 : 6))
      sleep $((RANDOM % (1 << failures) + 1)) ;;
  esac
done
