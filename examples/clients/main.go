// Reconstruct a WAV file of any length in windows, two requests at a time, with Go's standard library.
//
//	go run main.go URL IN.wav OUT.wav
//
// URL: the server, as http://localhost:8000. IN.wav: integers of 16, 24 or 32 bits, or 32-bit floats, at the model's
// sample rate; channels are averaged. OUT.wav: 32-bit floats, one channel. The joined windows equal the reconstruction
// of the whole. Requests use Triton's binary extension. Both are described in docs/http.md.
package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	model    = "gomin_reconstruct"
	window   = 512 // frames that a window adds to the result
	inFlight = 2

	pcm        = 1
	float      = 3
	extensible = 0xfffe // the format proper follows 24 bytes later
)

// settings are the model's parameters: the contract between server and client.
type settings struct {
	sampleRate, hopLength, nFFT, haloFrames int
}

// tensor describes an input or output; its bytes follow the JSON.
type tensor struct {
	Name       string         `json:"name"`
	Shape      []int          `json:"shape"`
	Datatype   string         `json:"datatype"`
	Parameters map[string]int `json:"parameters"`
}

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: go run main.go URL IN.wav OUT.wav")
		os.Exit(2)
	}
	if err := run(strings.TrimSuffix(os.Args[1], "/"), os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "main.go:", err)
		os.Exit(1)
	}
}

func run(url, input, output string) error {
	config, err := readSettings(url)
	if err != nil {
		return err
	}
	file, err := os.ReadFile(input)
	if err != nil {
		return err
	}
	samples, rate, err := decodeWav(file)
	if err != nil {
		return fmt.Errorf("%s: %w", input, err)
	}
	if rate != config.sampleRate {
		return fmt.Errorf("%s: %d Hz, but the model takes %d Hz: sox %s -r %d new.wav",
			input, rate, config.sampleRate, input, config.sampleRate)
	}
	reconstruction, err := reconstruct(url, samples, config)
	if err != nil {
		return err
	}
	// Beside the output, so that it gets its name only when it is complete.
	part, err := os.CreateTemp(filepath.Dir(output), ".main.go.*")
	if err != nil {
		return err
	}
	defer os.Remove(part.Name())
	_, err = part.Write(encodeWav(reconstruction, rate))
	if closing := part.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return err
	}
	if err := os.Chmod(part.Name(), 0o644); err != nil {
		return err
	}
	return os.Rename(part.Name(), output)
}

// readSettings asks the server for the model's parameters.
func readSettings(url string) (settings, error) {
	response, err := http.Get(url + "/v2/models/" + model + "/config")
	body, err := readAnswer(response, err)
	if err != nil {
		return settings{}, err
	}
	var config struct {
		Parameters map[string]struct {
			Value string `json:"string_value"`
		} `json:"parameters"`
	}
	if err := json.Unmarshal(body, &config); err != nil {
		return settings{}, fmt.Errorf("the model's config: %w", err)
	}
	var found settings
	for name, target := range map[string]*int{"sample_rate": &found.sampleRate, "hop_length": &found.hopLength,
		"n_fft": &found.nFFT, "halo_frames": &found.haloFrames} {
		if *target, err = strconv.Atoi(config.Parameters["gomin."+name].Value); err != nil {
			return settings{}, fmt.Errorf("the model's config, parameter gomin.%s: %w", name, err)
		}
	}
	return found, nil
}

// readAnswer returns the body of an answer, or what the server answers as an error.
func readAnswer(response *http.Response, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("the server answers %s: %s", response.Status, body)
	}
	return body, err
}

// reconstruct sends the recording in windows and returns as many samples as it takes.
func reconstruct(url string, samples []float32, config settings) ([]float32, error) {
	hop := config.hopLength
	// the network's halo, and the samples that the mel of a frame depends on
	reach := config.haloFrames + (config.nFFT/2+hop-1)/hop
	frames := 1 + len(samples)/hop
	type result struct {
		audio []float32
		err   error
	}
	results := make([]chan result, 0, frames/window+1)
	free := make(chan struct{}, inFlight)
	cancelled := make(chan struct{})
	defer close(cancelled)
	for kept := 0; kept < frames; kept += window {
		first := kept - smaller(kept, reach)
		answer := make(chan result, 1)
		results = append(results, answer)
		go func(kept int) {
			select {
			case free <- struct{}{}:
			case <-cancelled: // another window failed
				return
			}
			defer func() { <-free }()
			end := smaller((kept+window+reach)*hop, len(samples))
			audio, err := infer(url, samples[first*hop:end])
			if err == nil {
				begin := smaller((kept-first)*hop, len(audio))
				audio = audio[begin:smaller(begin+window*hop, len(audio))]
			}
			answer <- result{audio, err}
		}(kept)
	}
	joined := make([]float32, 0, frames*hop)
	for _, answer := range results {
		found := <-answer
		if found.err != nil {
			return nil, found.err
		}
		joined = append(joined, found.audio...)
	}
	// whole frames come back: cut off what lies beyond the recording's end
	return joined[:smaller(len(samples), len(joined))], nil
}

// infer sends one window: JSON that describes the tensors, then the bytes of the input.
func infer(url string, samples []float32) ([]float32, error) {
	header, err := json.Marshal(map[string]any{
		"inputs":     []tensor{{"audio", []int{1, 1, len(samples)}, "FP32", map[string]int{"binary_data_size": 4 * len(samples)}}},
		"parameters": map[string]bool{"binary_data_output": true},
	})
	if err != nil {
		return nil, err
	}
	body := bytes.NewBuffer(header)
	if err := binary.Write(body, binary.LittleEndian, samples); err != nil {
		return nil, err
	}
	request, err := http.NewRequest(http.MethodPost, url+"/v2/models/"+model+"/infer", body)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/octet-stream")
	request.Header.Set("Inference-Header-Content-Length", strconv.Itoa(len(header)))
	response, err := http.DefaultClient.Do(request)
	answer, err := readAnswer(response, err)
	if err != nil {
		return nil, err
	}
	size, err := strconv.Atoi(response.Header.Get("Inference-Header-Content-Length"))
	if err != nil || size < 0 || size > len(answer) {
		return nil, errors.New("the answer has no binary tensor")
	}
	var described struct {
		Outputs []tensor `json:"outputs"`
	}
	if err := json.Unmarshal(answer[:size], &described); err != nil {
		return nil, fmt.Errorf("the server's answer: %w", err)
	}
	if len(described.Outputs) != 1 || described.Outputs[0].Parameters["binary_data_size"] != len(answer)-size {
		return nil, errors.New("the answer has another size than it declares")
	}
	audio := make([]float32, (len(answer)-size)/4)
	return audio, binary.Read(bytes.NewReader(answer[size:]), binary.LittleEndian, audio)
}

// decodeWav returns the samples, full scale ±1, with channels averaged, and the sample rate.
func decodeWav(file []byte) ([]float32, int, error) {
	if len(file) < 12 || string(file[:4]) != "RIFF" || string(file[8:12]) != "WAVE" {
		return nil, 0, errors.New("not a WAV file")
	}
	var format, data []byte
	for rest := file[12:]; len(rest) >= 8 && data == nil; {
		size := int(binary.LittleEndian.Uint32(rest[4:]))
		content := rest[8:smaller(8+size, len(rest))] // a longer size than the file's: up to the file's end
		switch string(rest[:4]) {
		case "fmt ":
			format = content
		case "data":
			data = content
		}
		rest = rest[smaller(8+size+size%2, len(rest)):]
	}
	if len(format) < 16 || data == nil {
		return nil, 0, errors.New("not a complete WAV file")
	}
	code := binary.LittleEndian.Uint16(format)
	if code == extensible && len(format) >= 26 {
		code = binary.LittleEndian.Uint16(format[24:])
	}
	channels := int(binary.LittleEndian.Uint16(format[2:]))
	rate := int(binary.LittleEndian.Uint32(format[4:]))
	bits := int(binary.LittleEndian.Uint16(format[14:]))
	if !(code == float && bits == 32) && !(code == pcm && (bits == 16 || bits == 24 || bits == 32)) {
		return nil, 0, fmt.Errorf("format %d of %d bits; expected integers of 16, 24 or 32 bits, or floats of 32 bits",
			code, bits)
	}
	if channels == 0 {
		return nil, 0, errors.New("it has no channels")
	}
	width := bits / 8
	samples := make([]float32, len(data)/(width*channels))
	for index := range samples {
		sum := 0.0
		for channel := 0; channel < channels; channel++ {
			at := (index*channels + channel) * width
			var raw [4]byte
			copy(raw[4-width:], data[at:at+width]) // the most significant bytes, so that all widths have one scale
			word := binary.LittleEndian.Uint32(raw[:])
			if code == float {
				sum += float64(math.Float32frombits(word))
			} else {
				sum += float64(int32(word)) / (1 << 31)
			}
		}
		samples[index] = float32(sum / float64(channels))
	}
	return samples, rate, nil
}

// encodeWav returns a WAV file with one channel of 32-bit floats.
func encodeWav(samples []float32, rate int) []byte {
	size := uint32(4 * len(samples))
	file := new(bytes.Buffer)
	for _, part := range []any{
		[]byte("RIFF"), 50 + size, []byte("WAVEfmt "), uint32(18),
		uint16(float), uint16(1), uint32(rate), uint32(4 * rate), uint16(4), uint16(32), uint16(0),
		[]byte("fact"), uint32(4), uint32(len(samples)), // required unless the format is PCM
		[]byte("data"), size, samples,
	} {
		binary.Write(file, binary.LittleEndian, part) // a buffer takes everything
	}
	return file.Bytes()
}

func smaller(a, b int) int {
	if a < b {
		return a
	}
	return b
}
