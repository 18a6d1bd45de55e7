// Saves a quiz's answers by themselves: a moment after a change, and when the page is left.
"use strict";
(() => {
  const form = document.querySelector("form[data-autosave]");
  const state = document.getElementById("saved");
  if (!form || !state) return;

  const AFTER_MS = 1000, BETWEEN_MS = 3000, RETRY_MS = [5000, 15000, 60000], WAIT_MS = 4000;
  const OFFLINE = "Not saved: the site does not answer. Your answers are still on this page, and" +
    " saving is tried again.";
  const REFUSED = "Not saved. Press “Save and continue later” to see why.";
  let timer = 0, running = null, again = false, leaving = false, ended = false;
  let failures = 0, startedMs = -BETWEEN_MS;

  const answersIn = (data) =>
    JSON.stringify([...data].filter(([name]) => /^q\d/.test(name)));
  const answers = () => answersIn(new FormData(form));
  // What the server has sent, which may not be what the browser shows after a reload or a crash.
  const sentByServer = () => answersIn([...form.elements]
    .filter((field) => field.type === "text" ||
      ((field.type === "radio" || field.type === "checkbox") && field.defaultChecked))
    .map((field) => [field.name, field.type === "text" ? field.defaultValue : field.value]));
  let saved = sentByServer();

  const tell = (text, isError) => {
    state.classList.toggle("error", isError);
    if (state.textContent !== text) state.textContent = text;
  };

  const plan = (delayMs) => {
    if (leaving || ended) return;
    clearTimeout(timer);
    timer = setTimeout(save, Math.max(delayMs, startedMs + BETWEEN_MS - performance.now()));
  };

  const take = (answer, sent) => {
    if (answer.csrf_token) form.elements.csrf_token.value = answer.csrf_token;
    if (answer.revision !== undefined) form.elements.revision.value = answer.revision;
    saved = sent;
    failures = 0;
    tell(answer.text, false);
  };

  const save = (isLast = false) => {
    clearTimeout(timer);
    if (ended || answers() === saved) return;
    if (running && !isLast) { again = true; return; }
    again = false;
    const run = send().finally(() => {
      if (running === run) running = null;
      if (again) plan(0);
    });
    running = run;
  };

  const send = async () => {
    startedMs = performance.now();
    const sent = answers();
    try {
      const response = await fetch(form.dataset.autosave, {
        method: "POST",
        body: new URLSearchParams(new FormData(form)),
        credentials: "same-origin",
        keepalive: true,
        redirect: "error",
      });
      const isJson = (response.headers.get("Content-Type") || "").includes("json");
      const answer = isJson ? await response.json() : {};
      if (response.ok) {
        take(answer, sent);
      } else if (response.status >= 500) {
        throw new Error(`status ${response.status}`);
      } else {
        // Logged out, or other answers were saved meanwhile: a person has to decide.
        ended = response.status !== 401;
        tell(answer.text || REFUSED, true);
        if (!ended) plan(RETRY_MS[2]);
      }
    } catch {
      tell(OFFLINE, true);
      plan(RETRY_MS[Math.min(failures, RETRY_MS.length - 1)]);
      failures += 1;
    }
  };

  form.addEventListener("input", () => {
    leaving = false;  // If the form was sent, that was broken off.
    plan(AFTER_MS);
  });
  form.addEventListener("submit", async (event) => {
    clearTimeout(timer);
    if (leaving || !(running || failures)) {
      leaving = true;
      return;
    }
    // A save on its way must not arrive after what is handed in. And without a connection the
    // browser would replace this page, and the answers, by an error.
    event.preventDefault();
    if (failures) save();
    await Promise.race([running, new Promise((done) => setTimeout(done, WAIT_MS))]);
    if (failures) return;
    leaving = true;
    (event.submitter || form.querySelector("button")).click();
  });
  // A phone may end a hidden page without another event.
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "hidden" && !leaving) save(true);
  });
  addEventListener("pagehide", () => { if (!leaving) save(true); });
  addEventListener("online", () => plan(0));
  addEventListener("pageshow", (event) => {
    // The Back button has shown a page that was sent already: ask for what is true now.
    if (event.persisted && leaving) location.reload();
    else if (answers() !== saved) plan(AFTER_MS);
  });
})();
