/**
 * A table of a FlatBuffer, read by the numbers of its fields in the schema.
 *
 * The few fields that the page needs do not ask for generated code. Reading
 * outside the bytes, as a damaged file makes one, throws a RangeError.
 */
export class Table {
  #view;
  #start;

  constructor(view, start) {
    this.#view = view;
    this.#start = start;
  }

  /** The root table of a file. */
  static root(bytes) {
    const { buffer, byteOffset, byteLength } = bytes;
    const view = new DataView(buffer, byteOffset, byteLength);
    return new Table(view, view.getUint32(0, true));
  }

  byte(field) {
    const at = this.#position(field);
    return at ? this.#view.getInt8(at) : 0;
  }

  int(field) {
    const at = this.#position(field);
    return at ? this.#view.getInt32(at, true) : 0;
  }

  table(field) {
    const at = this.#position(field);
    return at ? new Table(this.#view, this.#follow(at)) : null;
  }

  tables(field) {
    return this.#vector(field, 4, (at) =>
      new Table(this.#view, this.#follow(at)));
  }

  ints(field) {
    return this.#vector(field, 4, (at) => this.#view.getInt32(at, true));
  }

  longs(field) {
    return this.#vector(field, 8, (at) =>
      Number(this.#view.getBigInt64(at, true)));
  }

  floats(field) {
    return this.#vector(field, 4, (at) => this.#view.getFloat32(at, true));
  }

  /** A vector of bytes, not copied. */
  bytes(field) {
    const [first, length] = this.#extent(field, 1);
    const { buffer, byteOffset } = this.#view;
    return new Uint8Array(buffer, byteOffset + first, length);
  }

  text(field) {
    return new TextDecoder().decode(this.bytes(field));
  }

  #vector(field, size, read) {
    const [first, length] = this.#extent(field, size);
    return Array.from({ length }, (_, i) => read(first + size * i));
  }

  /** Where a vector begins, and its length; empty if it is not there. */
  #extent(field, size) {
    const at = this.#position(field);
    if (!at) return [0, 0];
    const start = this.#follow(at);
    const length = this.#view.getUint32(start, true);
    // Before a damaged length makes an array of billions.
    if (start + 4 + size * length > this.#view.byteLength) {
      throw new RangeError("a vector reaches beyond the end");
    }
    return [start + 4, length];
  }

  /** Where a field is, or 0 if the file leaves it at its default. */
  #position(field) {
    const vtable = this.#start - this.#view.getInt32(this.#start, true);
    const slot = 4 + 2 * field;
    if (slot >= this.#view.getUint16(vtable, true)) return 0;
    const offset = this.#view.getUint16(vtable + slot, true);
    return offset && this.#start + offset;
  }

  #follow(position) {
    return position + this.#view.getUint32(position, true);
  }
}
