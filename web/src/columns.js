// Data from disk. A page from file:// may not fetch, so every data file is a script that stores base64 text or a list.
const loaded = new Map();
window.rarezooData = window.rarezooData || {};

export function bytes(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text).buffer;
  const raw = atob(text), out = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
  return out.buffer;
}

// Returns a promise of the data of assets/NAME.js, which is loaded and unpacked once.
export function data(name, unpack = (content) => content) {
  if (!loaded.has(name)) {
    loaded.set(name, new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = `assets/${name}.js`;
      script.onload = () => {
        const content = window.rarezooData[name];
        delete window.rarezooData[name];
        script.remove();
        resolve(unpack(content));
      };
      script.onerror = () => { loaded.delete(name); reject(new Error(`assets/${name}.js is not there: copy the whole folder.`)); };
      document.head.append(script);
    }));
  }
  return loaded.get(name);
}

export const float64 = (text) => new Float64Array(bytes(text));
export const int32 = (text) => new Int32Array(bytes(text));

// Returns the values of a column, NaN where unknown. The values of a category are indices into its names.
export const values = (column) => data(column.file, (text) => {
  if (column.kind === "category") return Float32Array.from(new Uint8Array(bytes(text)), (code) => (code === 255 ? NaN : code));
  return new Float32Array(bytes(text));
});
