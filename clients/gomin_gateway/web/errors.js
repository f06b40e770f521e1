// What goes wrong in an engine, in words for people. `kind` is for programs.
export class EngineError extends Error {
  constructor(detail, kind = "") {
    super(detail);
    this.kind = kind;
  }
}
