// Watch a run. Without this script the page shows the same after "Load the latest numbers".
"use strict";
{
  const live = document.getElementById("live"), said = document.getElementById("said");
  const base = `/runs/${live.dataset.run}`;
  let waiting = false, wanted = false, spoken = -1;

  // The server draws; here only what it drew is put in place, at most every two seconds, and nothing that is in use is lost.
  const refresh = async () => {
    if (waiting) { wanted = true; return; }
    waiting = true;
    try {
      const answer = await fetch(`${base}/live`);
      if (answer.ok) replace(await answer.text());
    } catch { /* the stream comes back, and this with it */ }
    setTimeout(() => { waiting = false; if (wanted) { wanted = false; refresh(); } }, 2000);
  };
  const replace = html => {
    const open = [...live.querySelectorAll("details[open] > summary")].map(each => each.textContent);
    const focus = document.activeElement, inside = live.contains(focus) && (focus.id || focus.textContent);
    live.innerHTML = html;
    for (const summary of live.querySelectorAll("summary")) summary.parentElement.open = open.includes(summary.textContent);
    if (inside) [...live.querySelectorAll("button, a, summary")].find(each => (each.id || each.textContent) === inside)?.focus({preventScroll: true});
  };
  const say = text => { if (said.textContent !== text) said.textContent = text; };

  const stream = new EventSource(`${base}/events?after=${live.dataset.last}`);
  stream.addEventListener("progress", event => {
    const {share, done, trials, left} = JSON.parse(event.data), bar = live.querySelector("progress"), far = live.querySelector("#far");
    if (!bar || !far) { refresh(); return; }
    bar.value = 100 * share;
    far.textContent = `${Math.round(100 * share)} %: ${done} of ${trials} trials${left ? `, ${left}` : ""}`;
    const quarter = Math.floor(4 * share);
    if (quarter > spoken) { spoken = quarter; say(far.textContent); }  // seldom: a screen reader reads it aloud
  });
  for (const kind of ["state", "plan", "trial", "points", "failed"]) stream.addEventListener(kind, refresh);
  stream.addEventListener("state", event => say(`The run is ${JSON.parse(event.data).state}.`));
  stream.addEventListener("end", () => { stream.close(); wanted = true; waiting = false; refresh(); });
}
