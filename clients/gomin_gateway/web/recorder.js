// Records a microphone as it is: no echo cancellation, no noise suppression, no lossy encoding.
import { encodeWav } from "./wav.js";

export class Recorder {
  #parts = [];
  #length = 0;

  static get available() {
    return Boolean(navigator.mediaDevices?.getUserMedia && window.AudioWorkletNode);
  }

  get seconds() { return this.#length / this.context.sampleRate; }

  async start() {
    this.stream = await navigator.mediaDevices.getUserMedia({
      audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false },
    });
    try {
      this.context = new AudioContext();
      await this.context.audioWorklet.addModule("recorder-worklet.js");
      await this.context.resume();
    } catch (error) {
      this.#release();
      throw error;
    }
    const node = new AudioWorkletNode(this.context, "recorder", { numberOfOutputs: 0 });
    node.port.onmessage = ({ data }) => {
      this.#parts.push(data);
      this.#length += data.length;
    };
    this.source = this.context.createMediaStreamSource(this.stream); // kept: Firefox drops a source that is not
    this.source.connect(node);
  }

  // The recording, a File; null if nothing was recorded.
  stop() {
    const rate = this.context.sampleRate;
    this.#release();
    if (!this.#length) return null;
    const samples = new Float32Array(this.#length);
    let at = 0;
    for (const part of this.#parts) {
      samples.set(part, at);
      at += part.length;
    }
    return new File([encodeWav(samples, rate)], "recording.wav", { type: "audio/wav" });
  }

  #release() {
    for (const track of this.stream.getTracks()) track.stop();
    this.context?.close();
  }
}
