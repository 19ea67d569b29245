// Asks the server. A failure is an error with its HTTP status: 0 if the server did not answer at all.
export class Refused extends Error {
  constructor(status, error, fix) { super([error, fix].filter(Boolean).join(". ").replace("..", ".")); this.status = status; }

  // Whether the same request may go well later.
  get later() { return this.status === 0 || this.status === 401 || this.status === 403 || this.status >= 500; }
}

async function answered(path, settings) {
  let response;
  try {
    response = await fetch(`/api/${path}`, { credentials: "same-origin", signal: AbortSignal.timeout(60000), ...settings });
  } catch { throw new Refused(0, "The server does not answer", "Is rarezoo serve still running?"); }
  const content = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(response.status, content.error || response.statusText, content.fix);
  return content;
}

// A value that is a list becomes several parameters of the same name.
export function query(parameters) {
  const text = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) for (const item of [value].flat()) if (item !== null && item !== undefined && item !== "") text.append(name, item);
  return text.toString();
}

export const get = (path, parameters = {}) => answered(`${path}?${query(parameters)}`, {});
export const post = (path, body) => answered(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal: AbortSignal.timeout(20000) });
// Side of the images in the grid, px: sharp on a screen of two pixels per px.
export const SIDE = 224;
export const picture = (id, side) => `/api/image?${query({ id, side })}`;
