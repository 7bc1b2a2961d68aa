"use strict";
// The page of `zsar predict --report`. Data lies in #data; the frames of card n in a text block #frames-n that may
// still be on its way while the page is shown.
const data = JSON.parse(document.getElementById("data").textContent);
const { labels, videos, about } = data;
// No label has a control character, so none is mistaken for a failure
const NONE = "none of these", FAILED = "\0could not be read", PER_PAGE = 48;
const COLOURS = ["#56b4e9", "#e69f00", "#35b597", "#cc79a7", "#e88a5a", "#f0e442", "#7fa7e0"]; // in the order of timeline_style.py
const $ = (id) => document.getElementById(id);
const state = { search: "", sort: "sure", group: null, threshold: about.threshold, page: 0 };

// --- decisions: what the person said of a video; kept in this browser where it allows that
const STORE = "zsar-" + about.id;
let decisions = {};
try { decisions = JSON.parse(localStorage.getItem(STORE)) || {}; } catch { /* private windows have no storage */ }
function decide(video, label) {
  if (label === null) delete decisions[video.absolute]; else decisions[video.absolute] = label;
  try { localStorage.setItem(STORE, JSON.stringify(decisions)); } catch { /* as above */ }
  refreshCards(video);
  countDecisions();
}

const decided = () => videos.filter((v) => v.absolute in decisions).map((v) => [v, decisions[v.absolute]]);

// --- answers
const best = (video) => labels[video.predictions[0][0]];
function answersOf(video) {
  if (video.error) return [FAILED];
  const found = new Set((video.segments || [video]).flatMap(answersOfPart));
  if (found.size > 1) found.delete(NONE);
  return [...found];
}
function answersOfPart(part) { // of a video, or of a segment of one
  const sure = about.multi
    ? part.predictions.filter((p) => p[2] >= state.threshold)
    : part.predictions.filter((p, place) => place === 0 && confidenceOf(part) >= state.threshold);
  return sure.length ? sure.map((p) => labels[p[0]]) : [NONE];
}
const confidenceOf = (part) => (about.multi ? Math.max(...part.predictions.map((p) => p[2])) : 1 - part.unknown);

videos.forEach((video, n) => {
  video.n = n;
  const parts = video.error ? [] : video.segments || [video];
  const candidates = parts.flatMap((part) => part.predictions.filter((p, place) => place === 0 || about.multi));
  video.text = [video.video, ...candidates.map((p) => labels[p[0]])].join("\n").toLowerCase();
  video.folder = video.video.slice(0, video.video.length - video.name.length);
  video.confidence = video.error ? -1 : Math.max(...(video.segments || [video]).map(confidenceOf));
});
const byText = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
const ORDERS = {
  sure: (a, b) => b.confidence - a.confidence || a.n - b.n,
  unsure: (a, b) => a.confidence - b.confidence || a.n - b.n,
  name: (a, b) => byText(a.name, b.name) || a.n - b.n,
  folder: (a, b) => byText(a.folder, b.folder) || byText(a.name, b.name) || a.n - b.n,
};

// --- small pieces
// Text that strangers chose: what would hide, reorder or break the rest of a line is shown as its code.
const visible = (text) => text.replace(/[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\u202a-\u202e\u2066-\u2069]/gu,
  (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
const short = (text, most = 160) => visible(text.length > most ? text.slice(0, most - 1) + "…" : text);
const named = (answer) => (answer === FAILED ? "could not be read" : short(answer));
function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key in made && key !== "style") made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}
const percent = (x) => (x >= 0.0995 ? Math.round(100 * x) : (100 * x).toFixed(1)) + "%";
function clock(seconds) {
  // Rounded as on the terminal; 59.96 is 1:00
  const tenths = Math.round(seconds * 10), s = tenths < 600 ? Math.floor(tenths / 10) : Math.round(seconds);
  const two = (x) => String(x).padStart(2, "0");
  const start = s >= 3600 ? Math.floor(s / 3600) + ":" + two(Math.floor(s / 60) % 60) : String(Math.floor(s / 60));
  return start + ":" + two(s % 60) + (tenths < 600 ? "." + (tenths % 10) : "");
}
const colourOf = (answer) => (answer === NONE ? "#c9c9c9" : COLOURS[labels.indexOf(answer) % COLOURS.length]);

// --- cards
// A video with several answers has a card under each of them.
const cardsOf = (video) => document.querySelectorAll(`.card[data-n="${video.n}"]`);
function filmOf(video) {
  const film = element("div", { className: "film", title: "move to look through the frames",
    style: `aspect-ratio:${video.width}/${video.height}` });
  const picture = element("div", { className: "pic" });
  const dots = element("div", { className: "dots" });
  film.append(picture, dots);
  if (video.frames) {
    for (let i = 0; i < video.frames; i++) dots.append(element("i"));
    film.addEventListener("pointermove", (event) => {
      const box = film.getBoundingClientRect();
      showFrame(film.closest(".card"), Math.floor(((event.clientX - box.left) / box.width) * video.frames));
    });
    loadFrames(video, picture);
  }
  return film;
}
function loadFrames(video, picture) {
  const block = $("frames-" + video.n);
  if (block) {
    picture.style.backgroundImage = 'url("data:image/webp;base64,' + block.textContent + '")';
  } else if (document.readyState === "loading") setTimeout(() => loadFrames(video, picture), 150);
}
function showFrame(card, frame) {
  const video = videos[card.dataset.n];
  if (!video.frames) return;
  const film = card.querySelector(".film"), picture = film.querySelector(".pic");
  card.dataset.frame = frame = Math.max(0, Math.min(video.frames - 1, frame));
  const scale = Math.min(film.clientWidth / video.width, film.clientHeight / video.height) || 1;
  picture.style.width = video.width * scale + "px";
  picture.style.height = video.height * scale + "px";
  picture.style.backgroundSize = video.frames * video.width * scale + "px " + video.height * scale + "px";
  picture.style.backgroundPosition = -frame * video.width * scale + "px 0";
  film.querySelectorAll("i").forEach((dot, i) => dot.classList.toggle("on", i === frame));
}
function timelineOf(video) {
  const line = element("div", { className: "line" });
  const cues = element("div", { className: "cues" });
  const length = Math.max(video.duration, 1e-6);
  for (const { start, end, answer, colour, confidence } of stretchesOf(video)) {
    const title = `${clock(start)}–${clock(end)}  ${answer}  ${percent(confidence)}`;
    const go = (event) => showFrame(event.target.closest(".card"), frameAt(video, (start + end) / 2));
    line.append(element("button", { title, tabIndex: -1, onclick: go, textContent: answer,
      style: `width:${(100 * (end - start)) / length}%;background:${colour}` }));
    const key = element("span", { className: "key", style: `background:${colour}` });
    cues.append(element("button", { onclick: go, title }, key, clock(start) + " " + answer));
  }
  return [line, cues];
}
function stretchesOf(video) { // neighbours with one answer and no cut between are one stretch, as surely as their surest part
  const found = [];
  for (const segment of video.segments) {
    const answer = answersOfPart(segment).map(named).join(" + "), last = found.at(-1), confidence = confidenceOf(segment);
    const colour = colourOf(answersOfPart(segment)[0]);
    if (last && last.answer === answer && !segment.cut) {
      last.end = segment.end;
      last.confidence = Math.max(last.confidence, confidence);
    } else found.push({ start: segment.start, end: segment.end, answer, colour, confidence });
  }
  return found;
}
function frameAt(video, time) {
  let found = 0;
  video.times.forEach((t, i) => { if (t <= time) found = i; });
  return found;
}
function cardOf(video) {
  const card = element("article", { className: "card" + (video.segments ? " wide" : ""), tabIndex: 0 });
  card.dataset.n = video.n;
  if (video.frames) card.append(filmOf(video));
  const body = element("div", { className: "body" });
  body.append(element("div", { className: "answer" }));
  if (video.error) body.append(element("div", { className: "warning", textContent: short(video.error, 400) }));
  else if (video.segments) body.append(...timelineOf(video));
  else for (const [label, score, yes] of video.predictions.slice(0, 5)) {
    const value = about.multi ? yes : score;
    body.append(element("div", { className: "score", title: `${named(labels[label])}: score ${percent(score)}, yes ${percent(yes)}` },
      element("span", { textContent: named(labels[label]) }),
      element("span", {}, element("b", { style: `width:${100 * value}%` })),
      element("span", { className: "n", textContent: percent(value) })));
  }
  if (video.warning) body.append(element("div", { className: "warning", textContent: short(video.warning, 400) }));
  const where = element("div", { className: "path" });
  const link = video.href ? { href: video.href, tabIndex: -1 } : {};
  where.append(element(video.href ? "a" : "span", { ...link, title: short(video.video, 1000) },
    element("bdi", { dir: "ltr", textContent: visible(video.video.slice(-300)) })));
  if (!video.error) {
    where.append(element("span", { textContent: clock(video.duration) }));
    if (video.unknown !== undefined) where.append(element("span", { textContent: "unknown " + percent(video.unknown) }));
  }
  body.append(where);
  if (!video.error && !video.segments) body.append(actionsOf(video));
  card.append(body);
  return card;
}
function actionsOf(video) {
  const choose = element("select", { "aria-label": "What it is" });
  const option = (label) => element("option", { value: label, textContent: named(label) });
  choose.append(element("option", { value: "", textContent: "it is …" }));
  if (video.absolute in decisions) choose.append(option(decisions[video.absolute]));
  const fill = () => { // thousands of labels on each card only where they are asked for
    const value = choose.value;
    choose.replaceChildren(choose.firstChild, ...[...labels, NONE].map(option));
    choose.value = value;
  };
  choose.addEventListener("focus", fill, { once: true });
  choose.addEventListener("pointerdown", () => choose.options.length < 3 && fill());
  choose.addEventListener("change", () => decide(video, choose.value || null));
  const right = element("button", { textContent: "✓ right", onclick: () => confirmAnswer(video) });
  return element("div", { className: "act" }, right, choose);
}
function confirmAnswer(video) {
  const answer = answersOf(video)[0];
  decide(video, decisions[video.absolute] === answer ? null : answer);
}
function refreshCards(video) {
  const answers = answersOf(video), said = decisions[video.absolute];
  for (const card of cardsOf(video)) {
    const line = card.querySelector(".answer");
    line.textContent = answers.slice(0, 20).map(named).join(", ");
    line.className = "answer" + (answers[0] === NONE ? " none" : answers[0] === FAILED ? " bad" : "");
    card.classList.toggle("sure", said !== undefined && answers.includes(said));
    card.classList.toggle("changed", said !== undefined && !answers.includes(said));
    const choose = card.querySelector("select");
    if (!choose) continue;
    choose.value = said ?? "";
    if (said !== undefined && choose.value !== said) { // not filled yet
      choose.append(element("option", { value: said, textContent: named(said) }));
      choose.value = said;
    }
    card.querySelector(".act button").setAttribute("aria-pressed", String(said !== undefined && answers.includes(said)));
  }
}

// --- the list
function update() {
  const matching = videos.filter((v) => !state.search || v.text.includes(state.search));
  const groups = new Map();
  for (const video of matching) for (const answer of answersOf(video)) {
    if (!groups.has(answer)) groups.set(answer, []);
    groups.get(answer).push(video);
  }
  if (state.group !== null && !groups.has(state.group)) state.group = null;
  const rank = (answer) => (answer === FAILED ? 2 : answer === NONE ? 1 : 0);
  const names = [...groups.keys()].sort((a, b) => rank(a) - rank(b) || groups.get(b).length - groups.get(a).length || byText(a, b));
  drawGroups(names, groups, matching.length);
  const rows = [];
  for (const name of state.group === null ? names : [state.group])
    for (const video of groups.get(name).sort(ORDERS[state.sort])) rows.push([name, video]);
  const pages = Math.max(1, Math.ceil(rows.length / PER_PAGE));
  state.page = Math.min(state.page, pages - 1);
  drawCards(rows.slice(state.page * PER_PAGE, (state.page + 1) * PER_PAGE), groups);
  drawPages(pages);
  drawHistogram();
}
function drawGroups(names, groups, all) {
  const button = (name, text) => element("button", { textContent: text, "aria-pressed": String(state.group === name),
    onclick: () => { state.group = name; state.page = 0; update(); } });
  $("groups").replaceChildren(button(null, `all ${all}`), ...names.map((n) => button(n, `${named(n)} ${groups.get(n).length}`)));
}
function drawCards(rows, groups) {
  const parts = [];
  let current = null, cards = element("div", { className: "cards" });
  // Groups of a card or two would leave most of the page empty; each card says its answer anyway
  const headed = rows.length >= 3 * new Set(rows.map(([name]) => name)).size;
  if (!headed && rows.length) parts.push(element("h2", { textContent: "By answer" }), cards);
  if (!headed) rows = [...new Map(rows.map((row) => [row[1], row])).values()]; // a video of several answers once
  for (const [name, video] of rows) {
    if (headed && name !== current) {
      current = name;
      cards = element("div", { className: "cards" });
      const count = groups.get(name).length;
      parts.push(element("h2", {}, named(name), element("span", { className: "soft", textContent: `  ${count} ${count === 1 ? "video" : "videos"}` })), cards);
    }
    cards.append(cardOf(video));
  }
  if (!rows.length) parts.push(element("p", { className: "soft", textContent: "Nothing matches." }));
  $("list").replaceChildren(...parts);
  for (const [, video] of rows) refreshCards(video);
  for (const card of document.querySelectorAll(".card")) showFrame(card, Math.floor((videos[card.dataset.n].frames || 0) / 2));
}
function drawPages(pages) {
  const go = (page) => () => { state.page = page; update(); scrollTo(0, 0); };
  $("pages").replaceChildren(...(pages < 2 ? [] : [
    element("button", { textContent: "‹ previous", disabled: state.page === 0, onclick: go(state.page - 1) }),
    element("span", { textContent: `page ${state.page + 1} of ${pages}` }),
    element("button", { textContent: "next ›", disabled: state.page === pages - 1, onclick: go(state.page + 1) })]));
}
function drawHistogram() {
  const bins = new Array(50).fill(0), good = videos.filter((v) => !v.error);
  for (const video of good) bins[Math.max(0, Math.min(49, Math.floor(video.confidence * 50)))]++;
  const most = Math.max(1, ...bins);
  const bars = bins.map((count, i) => {
    const height = count ? Math.max(1.5, (56 * count) / most) : 0;
    const colour = (i + 0.5) / 50 >= state.threshold ? "var(--bar)" : "var(--none)";
    return `<rect x="${i * 8 + 0.5}" y="${60 - height}" width="7" height="${height}" fill="${colour}"><title>${i * 2}% to ${i * 2 + 2}%: ${count}</title></rect>`;
  });
  const x = 400 * state.threshold;
  $("histogram").innerHTML = bars.join("") + `<line x1="${x}" x2="${x}" y1="0" y2="60" stroke="currentColor" stroke-width="1.5" vector-effect="non-scaling-stroke"/>`;
  const above = good.filter((v) => v.confidence >= state.threshold).length;
  const what = about.multi ? "yes" : "confidence (1 − unknown)";
  $("said").textContent = `${what} at least ${state.threshold.toFixed(2)}: ${above} answered, ${good.length - above} none of these`;
  const option = `zsar predict --min-confidence ${state.threshold.toFixed(2)}`; // first, to be seen however long the rest
  $("command").textContent = about.command && about.command.replace("zsar predict", option);
}
function countDecisions() {
  const made = decided();
  const right = made.filter(([video, label]) => answersOf(video).includes(label)).length;
  $("count").textContent = made.length ? `${made.length} looked at, ${right} of them right` : "";
}

// --- export: path,label as zsar train and zsar eval read it
function exportList(withNone) {
  // What a list in UTF-8, a video a line, cannot name: bytes of other encodings and line ends in a file's name
  const unnamed = (text) => /[\r\n]|\p{Cs}/u.test(text);
  const quote = (text) => (/[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text);
  const chosen = decided().filter(([, label]) => withNone || label !== NONE);
  const rows = chosen
    .filter(([video]) => !unnamed(video.absolute))
    .map(([video, label]) => quote(video.absolute) + "," + quote(label === NONE ? "none" : label));
  const text = "path,label\n" + rows.map((row) => row + "\n").join("");
  const link = element("a", { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })),
    download: withNone ? "labels-with-none.csv" : "labels.csv" });
  document.body.append(link);
  link.click();
  link.remove();
  const left = chosen.length - rows.length;
  $("said-export").textContent = `${rows.length} saved` + (left ? `; ${left} left out, whose names a list cannot hold` : "");
}

// --- what people do
$("search").addEventListener("input", () => { state.search = $("search").value.trim().toLowerCase(); state.page = 0; update(); });
$("sort").addEventListener("change", () => { state.sort = $("sort").value; state.page = 0; update(); });
$("threshold").value = state.threshold;
$("export").hidden = $("export-none").hidden = !videos.some((v) => v.predictions);
let waiting = 0; // dragging may ask faster than cards are drawn
$("threshold").addEventListener("input", () => {
  cancelAnimationFrame(waiting);
  state.threshold = Number($("threshold").value);
  drawHistogram();
  waiting = requestAnimationFrame(() => { update(); countDecisions(); });
});
$("export").addEventListener("click", () => exportList(false));
$("export-none").addEventListener("click", () => exportList(true));
$("show-help").addEventListener("click", () => $("help").showModal());
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  const typing = event.target.closest("input, select");
  if (event.key === "Escape" && typing) return typing.blur();
  if (typing) return;
  if (event.key === "/") { event.preventDefault(); return $("search").focus(); }
  if (event.key === "?") return $("help").showModal();
  const cards = [...document.querySelectorAll(".card")];
  const card = document.activeElement.closest?.(".card");
  const video = card && videos[card.dataset.n];
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: acrossOf(cards), ArrowUp: -acrossOf(cards) }[event.key];
  if (step !== undefined && cards.length) {
    event.preventDefault();
    const place = card ? cards.indexOf(card) + step : 0;
    return cards[Math.max(0, Math.min(cards.length - 1, place))].focus();
  }
  if (!video || video.error) return;
  if (event.key === "," || event.key === ".") return showFrame(card, Number(card.dataset.frame) + (event.key === "." ? 1 : -1));
  if (video.segments) return;
  if (event.key === "c") confirmAnswer(video);
  else if (event.key === "u") decide(video, null);
  else if (event.key === "0") decide(video, NONE);
  else if (/^[1-5]$/.test(event.key) && video.predictions[event.key - 1]) decide(video, labels[video.predictions[event.key - 1][0]]);
});
function acrossOf(cards) {
  const top = cards[0]?.offsetTop;
  const across = cards.findIndex((card) => card.offsetTop !== top);
  return across > 0 ? across : 1;
}
addEventListener("resize", () => document.querySelectorAll(".card").forEach((card) => showFrame(card, Number(card.dataset.frame))));
update();
countDecisions();
