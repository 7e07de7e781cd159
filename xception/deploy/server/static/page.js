"use strict";

// The page asks the server it came from and nobody else; photos go there and nowhere else.

const $ = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(1)} %`;
let photo = null; // the file that was asked about last
let asking = null; // stops the question that is under way
let shown = null; // the object URL of the photo

function make(tag, className, ...content) {
  const element = document.createElement(tag);
  element.className = className;
  element.append(...content);
  return element;
}

function say(status, error = "", again = false) {
  $("status").textContent = status;
  $("error").textContent = error;
  $("again").hidden = !again;
}

function headers() {
  const key = $("key").value.trim();
  return key ? { Authorization: `Bearer ${key}` } : {};
}

function wantKey() {
  const asked = !$("key-row").hidden;
  $("key-row").hidden = false;
  $("key").focus();
  say("", asked && $("key").value ? "This key does not open the server." : "This server wants a key.");
}

async function introduce() {
  let response;
  try {
    response = await fetch("card", { headers: headers() });
  } catch {
    return say("", "The server does not answer.");
  }
  if (response.status === 401) return wantKey();
  if (!response.ok) return say("", `The server answers with status ${response.status}.`);
  const card = await response.json();
  const classes = card.classes.length;
  $("about").textContent = `${card.architecture.name} · ${classes} ${classes === 1 ? "class" : "classes"}`;
  if (!photo) say("");
}

async function ask(file) {
  photo = file;
  asking?.abort();
  const stop = (asking = new AbortController());
  $("answer").hidden = true;
  say("Looking …");
  try {
    const response = await fetch("predict?top=5", {
      method: "POST",
      headers: { ...headers(), "Content-Type": file.type || "application/octet-stream" },
      body: file,
      signal: stop.signal,
    });
    if (response.status === 401) return wantKey();
    const content = await response.json();
    if (stop.signal.aborted) return;
    const answer = content.answers?.[0];
    if (response.ok && answer && !answer.error) await show(file, content, answer);
    else refuse(response, answer?.error ?? content.error);
  } catch (error) {
    if (stop.signal.aborted) return;
    say("", "The server does not answer, or did not take the whole file.", true);
  }
}

function refuse(response, reason) {
  if (response.status !== 503) return say("", `This file cannot be used: ${reason}.`);
  const seconds = response.headers.get("Retry-After");
  say("", `The server is busy${seconds ? `; it asks to wait ${seconds} s` : ""}.`, true);
}

async function show(file, content, answer) {
  if (shown) URL.revokeObjectURL(shown);
  shown = URL.createObjectURL(file);
  const image = $("photo");
  image.hidden = false;
  $("caption").textContent = file.name && file.name !== "image.png" ? file.name : "";
  image.onerror = () => {
    image.hidden = true;
    $("caption").textContent = "Your browser cannot show this kind of file.";
  };
  image.src = shown;
  const masked = typeof answer.mask === "string";
  $("bars").hidden = masked;
  $("mask").hidden = $("overlay").hidden = !masked;
  if (masked) await showMask(content, answer);
  else showBars(answer.top);
  $("answer").hidden = false;
}

function showBars(top) {
  const rows = top.map(({ label, probability }) => {
    const row = make("div", "row", make("span", "label", label), make("span", "", percent(probability)));
    const fill = make("div", "fill");
    fill.style.setProperty("--share", `${100 * probability}%`);
    return make("li", "", row, make("div", "track", fill));
  });
  $("bars").replaceChildren(...rows);
  say(top.length ? `${top[0].label}, ${percent(top[0].probability)}` : "No class at all.");
}

// The mask of the answer on show: its pixels, and the numbers of the classes that are hidden.
const mask = { pixels: null, colours: new Map(), hidden: new Set() };

async function showMask(content, answer) {
  const bytes = Uint8Array.from(atob(answer.mask), (character) => character.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }), {
    colorSpaceConversion: "none",
    premultiplyAlpha: "none",
  });
  const canvas = $("mask");
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  mask.pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  mask.colours = new Map(content.colours.map((colour, index) => [parseInt(colour.slice(1), 16), index]));
  mask.hidden.clear();
  const present = content.classes
    .map((name, index) => ({ name, index, share: answer.coverage[name] ?? 0 }))
    .filter(({ share }) => share > 0)
    .sort((a, b) => b.share - a.share);
  $("legend").replaceChildren(...present.map((one) => legendRow(one, content.colours[one.index])));
  paint();
  say(present.length ? `${present[0].name} covers ${percent(present[0].share)}` : "Nothing was found.");
}

function legendRow({ name, index, share }, colour) {
  const box = make("input", "");
  box.type = "checkbox";
  box.checked = true;
  box.addEventListener("change", () => {
    if (box.checked) mask.hidden.delete(index);
    else mask.hidden.add(index);
    paint();
  });
  const swatch = make("span", "swatch");
  swatch.style.setProperty("--colour", colour);
  return make("li", "", make("label", "", box, swatch, make("span", "label", name), make("span", "", percent(share))));
}

function paint() {
  const { pixels, colours, hidden } = mask;
  const opacity = Number($("opacity").value);
  $("opacity-value").textContent = `${opacity} %`;
  if (!pixels) return;
  const alpha = Math.round(2.55 * opacity);
  const { data } = pixels;
  for (let i = 0; i < data.length; i += 4) {
    const index = colours.get((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
    data[i + 3] = hidden.has(index) ? 0 : alpha;
  }
  $("mask").getContext("2d").putImageData(pixels, 0, 0);
}

function firstFile(transfer) {
  const file = transfer?.files?.[0];
  if (file) ask(file);
  return Boolean(file);
}

$("file").addEventListener("change", () => {
  firstFile($("file"));
  $("file").value = ""; // so that the same file can be chosen again
});
$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  introduce();
  if (photo) ask(photo);
});
$("again").addEventListener("click", () => ask(photo));
$("opacity").addEventListener("input", paint);
document.addEventListener("paste", (event) => {
  if (event.target !== $("key") && !firstFile(event.clipboardData)) say("", "There is no photo to paste.");
});
for (const type of ["dragenter", "dragover"]) {
  document.addEventListener(type, (event) => {
    event.preventDefault();
    $("drop").classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) $("drop").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  if (!firstFile(event.dataTransfer)) say("", "That was no file.");
});
introduce();
