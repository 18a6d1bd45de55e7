/* The live view. The server answers each request with the events after the last one, and ends; the
   browser's EventSource asks again by itself, with the id of the last event. */

"use strict";

(() => {
  const root = document.getElementById("live");
  if (!root || !window.EventSource) return;

  const SILENT_MS = 12000; // without an answer for so long, the site is away
  const RETRY_MIN_MS = 2000;
  const RETRY_MAX_MS = 30000;
  const ANNOUNCE_MS = 30000;

  const part = (role) => root.querySelector(`[data-role="${role}"]`);
  const list = part("events");
  const pause = part("pause");
  const template = root.querySelector("template").content;
  const rowsMax = Number(root.dataset.rowsMax);

  let after = root.dataset.after;
  let source = null;
  let paused = false;
  let ended = false;
  let retryMs = RETRY_MIN_MS;
  let heardAt = Date.now();
  let timer = null;
  let unannounced = 0;
  let announcedAt = 0;

  const number = (position) => BigInt(position.split(".")[0]);

  function show(state, trouble) {
    part("state").textContent = state;
    part("trouble").hidden = !trouble;
    if (part("trouble").textContent !== (trouble || "")) {
      part("trouble").textContent = trouble || "";
      if (trouble) part("announcement").textContent = trouble;
    }
  }

  function add(event) {
    const position = event.lastEventId;
    // Whatever lies between, such as a proxy that sends an answer twice: no event is shown twice.
    if (after !== "new" && number(position) <= number(after)) return;
    const card = JSON.parse(event.data);
    const row = template.cloneNode(true);
    for (const place of row.querySelectorAll("[data-place]")) {
      const name = place.dataset.place;
      if (name === "position") place.dataset.position = card.position;
      else place.textContent = card[name];
      if (name === "clock") place.dateTime = card.moment;
    }
    row.firstElementChild.classList.add("fresh");
    list.prepend(row);
    while (list.children.length > rowsMax) list.lastElementChild.remove();
    part("empty").hidden = true;
    after = position;
    unannounced += 1;
  }

  function announce() {
    if (!unannounced || Date.now() - announcedAt < ANNOUNCE_MS) return;
    part("announcement").textContent =
      unannounced === 1 ? "1 new event." : `${unannounced} new events.`;
    announcedAt = Date.now();
    unannounced = 0;
  }

  function heard(state) {
    heardAt = Date.now();
    retryMs = RETRY_MIN_MS;
    root.querySelectorAll(".unavailable").forEach((notice) => notice.remove());
    if (state.replaced) {
      ended = true;
      close();
      pause.hidden = true;
      show(
        "Stopped.",
        "The trail was restored from a backup, or replaced: events above may not be in it any" +
          " more. Choose “Show newer events” to begin again."
      );
    } else if (state.away) {
      show("Waiting.", `${state.away} Waiting: events are shown once it answers.`);
    } else if (!state.busy) {
      if (after === "new") {
        after = "0"; // the trail is empty: from its beginning on
        resume();
      }
      const clock = new Date().toISOString().slice(11, 19);
      show(state.more ? "Live. More events follow." : `Live. Last asked at ${clock} UTC.`, "");
      announce();
    }
  }

  function open() {
    if (source || paused || ended || document.hidden) return;
    const address = new URL(root.dataset.stream, location.href);
    address.searchParams.set("after", after);
    source = new EventSource(address);
    source.addEventListener("stored", add);
    source.addEventListener("state", (event) => heard(JSON.parse(event.data)));
    source.onerror = () => {
      // After each answer the browser asks again by itself, unless the site refused.
      if (source && source.readyState === EventSource.CLOSED) {
        close();
        timer = setTimeout(openIfLoggedIn, retryMs);
        retryMs = Math.min(2 * retryMs, RETRY_MAX_MS);
      }
    };
  }

  // A browser does not tell why a stream ended: this request, which reads nothing, is answered
  // with a redirect to the login after a logout, and refused otherwise.
  async function openIfLoggedIn() {
    try {
      const answer = await fetch(`${root.dataset.stream.split("?")[0]}?after=`, {
        redirect: "manual",
      });
      if (answer.type === "opaqueredirect" || answer.status === 403) {
        ended = true;
        pause.hidden = true;
        show("Stopped.", "You are logged out. Log in again, and open this page again.");
        return;
      }
    } catch {
      // The site does not answer: asked again below.
    }
    open();
  }

  function close() {
    clearTimeout(timer);
    if (source) source.close();
    source = null;
  }

  function resume() {
    heardAt = Date.now();
    close();
    open();
  }

  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? "Continue" : "Pause";
    if (paused) {
      close();
      show("Paused. Events meanwhile are shown when you continue.", "");
    } else {
      show("Live.", "");
      resume();
    }
  });

  // A page that nobody looks at reads nobody's data.
  document.addEventListener("visibilitychange", () => {
    if (paused || ended) return;
    if (document.hidden) close();
    else resume();
  });

  setInterval(() => {
    if (paused || ended || document.hidden || Date.now() - heardAt < SILENT_MS) return;
    show("Waiting.", "The site does not answer. Waiting. If you were logged out, reload this page.");
  }, 1000);

  pause.hidden = false;
  show("Live.", "");
  open();
})();
