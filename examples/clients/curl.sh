#!/bin/sh
# Reconstruct a recording, or vocode a mel, with curl and sox or ffmpeg. The requests have no JSON: see docs/http.md.
#
#   curl.sh URL IN OUT.wav
#
# URL  the server, as http://localhost:8000
# IN   a recording in any format that sox reads, or ffmpeg if sox does not, or a mel: NAME.f32, little-endian float32 values, all frames
#      of the lowest band first
set -eu

fail() {
    echo "curl.sh: $1" >&2
    exit 1
}

[ $# = 3 ] || { echo "usage: curl.sh URL IN OUT.wav" >&2; exit 2; }
url=${1%/} input=$2 output=$3
command -v sox >/dev/null || command -v ffmpeg >/dev/null || fail "neither sox nor ffmpeg is installed"
[ -f "$input" ] || fail "$input: no such file"

# beside the output, so that it gets its name only when it is complete
work=$(mktemp -d "$(dirname "$output")/.curl.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# get PATH: the answer is in $work/answer
request() {
    status=$(curl -sS -o "$work/answer" -w '%{http_code}' "$@") || fail "no answer from $url"
    [ "$status" = 200 ] || fail "$url answers $status: $(cat "$work/answer")"
}

# number NAME: the value of a gomin.NAME parameter of the model
number() {
    sed -n "s/.*\"gomin\.$1\":{\"string_value\":\"\([0-9]*\)\"}.*/\1/p" "$work/config"
}

# decode: the recording's samples are in $work/request
decode() {
    if command -v sox >/dev/null; then
        if sox "$input" -t f32 -L -r "$rate" -c 1 "$work/request" 2>"$work/messages"; then
            cat "$work/messages" >&2
            return 0
        fi
        if ! command -v ffmpeg >/dev/null; then
            cat "$work/messages" >&2
            fail "$input: sox cannot read it; ffmpeg, which reads more formats, is not installed"
        fi
    fi
    # without this filter, the mean of two channels would be louder by a factor of √2
    ffmpeg -nostdin -v error -y -i "$input" -af aresample=rematrix_maxval=1 -f f32le -ar "$rate" -ac 1 \
        "$work/request" || fail "$input: ffmpeg cannot read it"
}

case $input in *.f32) model=gomin_gan ;; *) model=gomin_reconstruct ;; esac
request "$url/v2/models/$model/config"
mv "$work/answer" "$work/config"
rate=$(number sample_rate) hop=$(number hop_length) bands=$(number n_mels)

case $input in
*.f32)
    cp "$input" "$work/request"
    size=$(($(wc -c <"$input")))
    [ $((size % (4 * bands))) = 0 ] || fail "$input: $size bytes, expected a multiple of 4 × $bands bands"
    bytes=$((size / bands * hop))
    kept=$bytes
    ;;
*)
    decode
    kept=$(($(wc -c <"$work/request")))
    # 1 + samples / hop frames of hop samples, 4 bytes each
    bytes=$(((1 + kept / 4 / hop) * hop * 4))
    ;;
esac

# Without this content type, a body of more than about 4 MB ends the server.
request -H 'Content-Type: application/octet-stream' -H 'Inference-Header-Content-Length: 0' \
    --data-binary "@$work/request" "$url/v2/models/$model/infer"

# The answer is JSON followed by the samples. Those beyond the recording's end are cut off.
tail -c "$bytes" "$work/answer" | head -c "$kept" >"$work/samples"
if command -v sox >/dev/null; then
    sox -t f32 -L -r "$rate" -c 1 "$work/samples" "$work/out.wav"
else
    ffmpeg -nostdin -v error -f f32le -ar "$rate" -ac 1 -i "$work/samples" -c:a pcm_f32le "$work/out.wav"
fi
mv -f "$work/out.wav" "$output"
