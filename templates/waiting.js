// Keeps the waiting page up to date, and enters the shop when it is the visitor's turn. It changes the elements marked
// data-waitroom="NAME", and shows or hides those marked data-waitroom-if="NAME"; a page may have any of them.
(() => {
  "use strict";
  const box = document.getElementById("waitroom");
  const { language, states, messages } = JSON.parse(box.textContent);
  const { room, position } = box.dataset;
  const storageKey = "waitroom_went_" + room;
  const loadedAt = Date.now();

  let state = box.dataset.state;
  let text = box.dataset.text;
  let start = Number(box.dataset.start) || 0;
  let pollAfter = seconds(box.dataset.pollAfter);
  let saidPosition = Number(position) || Infinity;
  let saidAt = loadedAt;
  let receivedAt = loadedAt;
  let age = 0;
  let requestedAt = loadedAt;
  let requesting = false;
  let leaving = false;
  let failures = 0;
  let timer;
  // When the next phase of the event begins, and how much the server's clock is ahead of the page's steady one: the
  // visitor's own clock may be wrong. Each reading of the server's clock is too low, by the time that it took to come.
  let nextPhase = 0;
  let serverAhead = -Infinity;

  const live = document.createElement("p");
  live.setAttribute("role", "status");
  live.style.cssText = "position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)";
  live.setAttribute("aria-live", "polite");
  document.body.append(live);

  function marked(name, kind = "") { return document.querySelectorAll(`[data-waitroom${kind}=${name}]`); }
  function setText(name, text) {
    for (const each of marked(name)) if (each.textContent !== text) each.textContent = text;
  }
  function toggle(name, there) {
    for (const each of marked(name, "-if")) each.hidden = !there;
  }
  function number(value, unit) {
    const style = unit ? { style: "unit", unit, unitDisplay: "long" } : { useGrouping: true };
    return new Intl.NumberFormat(language, style).format(value);
  }
  function seconds(value) { return Math.min(Math.max(Number(value) || 15, 1), 300); }

  // The same as Language.wait in pages/i18n.py.
  function formatWait(range) {
    if (!range) return messages.unknown;
    if (range[1] < 60) return messages.soon;
    let least = Math.floor(range[0] / 60), most = Math.ceil(range[1] / 60), name = "minute";
    if (most > 20) {
      least -= least % 5;
      most = Math.ceil(most / 5) * 5;
    }
    let shortest = least;
    if (most > 120) {
      name = "hour";
      most = Math.ceil(most / 60);
      if (least >= 60) shortest = least = Math.floor(least / 60);
      else if (least) {
        shortest = number(least, "minute");
        least = -1;
      }
    }
    const pattern = least === 0 ? messages.most : least === most ? messages.about : messages.range;
    return pattern.replace("{low}", shortest).replace("{high}", number(most, name));
  }

  function showAge() {
    // A held page doesn't say how old its data is: it keeps showing the time.
    if (state === "held" || state === "busy") return;
    const passed = Math.round(age + Math.max(0, Date.now() - receivedAt) / 1000);
    const format = new Intl.RelativeTimeFormat(language, { numeric: "auto" });
    if (passed < 90) setText("updated", format.format(passed < 5 ? 0 : -passed, "second"));
    else setText("updated", format.format(-Math.round(passed / 60), "minute"));
  }

  function onServerTime(ms) {
    if (ms) serverAhead = Math.max(serverAhead, ms - performance.now());
  }

  function showCountdown() {
    if (!nextPhase) return;
    const left = Math.ceil((nextPhase - serverAhead - performance.now()) / 1000);
    if (!(left > 0)) return setText("countdown", messages.due);
    const pad = (value) => String(Math.floor(value)).padStart(2, "0");
    const days = Math.floor(left / 86400), hours = Math.floor(left % 86400 / 3600);
    const minutes = left % 3600 / 60;
    const clock = (left < 3600 ? Math.floor(minutes) : hours + ":" + pad(minutes)) + ":" + pad(left % 60);
    setText("countdown", days ? number(days, "day") + " " + clock : clock);
  }

  // A time in the visitor's own zone; the server doesn't know it.
  function showTime(name, at) {
    toggle(name, at);
    if (!at) return;
    const style = { weekday: "long", day: "numeric", month: "long", hour: "numeric", minute: "2-digit", timeZoneName: "short" };
    for (const each of marked(name)) each.dateTime = at;
    setText(name, new Intl.DateTimeFormat(language, style).format(new Date(at)));
  }

  // The event whose next phase the visitor waits for, if there is one.
  function awaited(status) {
    const { event, state, reopening } = status;
    if (!event) return null;
    if (state === "prequeue") return event.phase === "prequeue" ? event : null;
    return (state === "closed" || state === "sold_out") && reopening && event.phase === "scheduled" ? event : null;
  }

  // The same as EventNotice.key in pages/event_notice.py.
  function eventKey(event) {
    return event.name + " " + event.phase + (event.prequeue_starts_at ? " queue" : "");
  }

  function showEvent(event) {
    toggle("event", event);
    nextPhase = 0;
    if (!event) return;
    const opens = event.phase === "scheduled" ? event.prequeue_starts_at : null;
    showTime("queue_opens", opens);
    showTime("starts", event.starts_at);
    setText("event_title", event.title);
    toggle("event_title", event.title);
    nextPhase = Date.parse(opens || event.starts_at);
    showCountdown();
  }

  // The name of the texts for a status, as SharedStatus.text in status.py.
  function textName(status) {
    const { state, event, reopening } = status;
    if (state === "closed" && reopening === "event") return "scheduled";
    if (state === "closed" && event && event.phase === "ended") return "ended";
    return state === "sold_out" && reopening === "stock" ? "sold_out_for_now" : state;
  }

  function announce(text) {
    live.textContent = text;
    saidAt = Date.now();
  }

  function notice(text) {
    setText("notice", text);
    toggle("notice", text);
  }

  function setState(next, name) {
    state = next;
    text = name;
    document.documentElement.dataset.state = next;
    document.documentElement.dataset.text = name;
    setText("heading", states[name][0]);
    setText("lead", states[name][1]);
    setText("title", states[name][0]);
    announce(states[name][0]);
  }

  function progress(place) {
    start = Math.max(start, place);
    const percent = Math.floor(100 * (start - place) / start);
    for (const each of marked("progress")) {
      each.value = percent;
      each.setAttribute("aria-valuenow", percent);
      for (const bar of each.querySelectorAll("rect")) bar.setAttribute("width", percent + "%");
    }
  }

  function update(status) {
    for (const name of ["position", "waiting", "remaining"]) {
      const there = typeof status[name] === "number";
      toggle(name, there);
      if (there) setText(name, number(status[name]));
    }
    const wait = formatWait(status.eta_seconds);
    setText("eta", wait);
    toggle("likely_sold_out", status.likely_sold_out);
    const message = [messages[status.position_reason], status.message].filter(Boolean).join(" ");
    setText("message", message);
    toggle("message", message);
    const place = status.position;
    toggle("progress", place);
    if (place) {
      progress(place);
      if (state === "waiting" && states.waiting) setText("title", number(place) + " · " + states.waiting[0]);
      // At most once a minute, and only if the position fell by a tenth or is near the front.
      if ((place <= saidPosition * 0.9 || (place <= 10 && place < saidPosition)) && Date.now() - saidAt >= 60000) {
        saidPosition = place;
        announce(messages.place.replace("{position}", number(place)) + " " + wait);
      }
    }
    showAge();
  }

  // The page is reloaded at most once in 5 s, and less often if reloads keep leading back here.
  function reloads() {
    try {
      return JSON.parse(sessionStorage.getItem(storageKey)) || [0, 0];
    } catch (error) {
      return [loadedAt, 1];
    }
  }
  function remember(reloads) {
    try {
      sessionStorage.setItem(storageKey, JSON.stringify(reloads));
    } catch (error) {
      // Without storage, the age of the page has to do.
    }
  }

  function reload(called) {
    const [at, times] = reloads();
    // A called visitor enters immediately: the time to do so is running, and a hidden tab gets one timer a minute.
    const guard = times > (called ? 1 : 0) ? Math.min(5000 * 2 ** (times - 1), 60000) - Math.abs(Date.now() - at) : 0;
    const go = () => {
      remember([Date.now(), Math.min(times + 1, 5)]);
      const here = location.href;
      // Replacing an address that has a fragment by itself only scrolls, so the address is changed first.
      if (location.hash) history.replaceState(null, "", location.search ? location.pathname : "?waitroom");
      location.replace(here);
      // The shop may be slow, and another reload would cancel its response.
      leaving = false;
      schedule(90);
    };
    leaving = true;
    if (called && guard <= 0) go();
    else timer = setTimeout(go, Math.max(guard, 0));
  }

  function schedule(after) {
    clearTimeout(timer);
    timer = setTimeout(poll, after * 1000);
  }

  function onFailure(request) {
    failures += 1;
    if (failures === 2) {
      notice(messages.lost);
      announce(messages.lost);
    }
    showAge();
    const asked = Math.min(Number(request.getResponseHeader("Retry-After")) || 0, 300);
    const after = Math.max(Math.min(5 * 2 ** (failures - 1), 60), pollAfter, asked);
    schedule(after * (1 + Math.random() / 4));
  }

  function onResponse(request) {
    let status;
    try {
      status = JSON.parse(request.responseText);
    } catch (error) {
      status = {};
    }
    // The room no longer exists.
    if (request.status === 404) return reload();
    if (request.status !== 200 || !status || !status.state) return onFailure(request);
    failures = 0;
    notice("");
    pollAfter = seconds(status.poll_after);
    if (status.state === "unknown" && !navigator.cookieEnabled) {
      notice(messages.cookies);
      return schedule(60);
    }
    if (status.state === "unknown") return reload();
    if (status.state === "called" || status.state === "admitted") {
      if (states.called) setState("called", "called");
      return reload(true);
    }
    const event = awaited(status);
    // Only the server has the texts for another event or phase.
    if (event && eventKey(event) !== box.dataset.event) return reload();
    remember([0, 0]);
    onServerTime(Date.parse(request.getResponseHeader("Date")) || Date.parse(status.updated_at));
    const name = textName(status);
    if (status.state !== state || name !== text) {
      // A page with its own texts can't change its state without a reload.
      if (!states[text] || !states[name]) return reload();
      setState(status.state, name);
    }
    showEvent(event);
    // Both times are the server's: the visitor's clock may be wrong.
    receivedAt = Date.now();
    age = Math.max((Date.parse(request.getResponseHeader("Date")) - Date.parse(status.updated_at)) / 1000, 0) || 0;
    update(status);
    schedule(pollAfter);
  }

  function poll() {
    if (requesting || leaving) return;
    clearTimeout(timer);
    requesting = true;
    requestedAt = Date.now();
    const request = new XMLHttpRequest();
    request.open("GET", "/.waitroom/status?room=" + room);
    request.setRequestHeader("Accept", "application/json");
    request.timeout = 15000;
    request.onloadend = () => {
      requesting = false;
      try {
        onResponse(request);
      } catch (error) {
        // A browser too old for this script gets the page as rendered by the server.
        reload();
      }
    };
    request.send();
  }

  // Timers are suspended in hidden tabs and on sleeping phones.
  function onReturn() {
    if (!document.hidden && Math.abs(Date.now() - requestedAt) > 2000) poll();
  }
  document.addEventListener("visibilitychange", onReturn);
  addEventListener("online", onReturn);
  setInterval(() => { if (!document.hidden) showAge(); }, 5000);
  setInterval(() => { if (!document.hidden) showCountdown(); }, 1000);

  if (marked("heading").length && marked("lead").length) {
    states[text] = [marked("heading")[0].textContent, marked("lead")[0].textContent];
  }
  onServerTime(Number(box.dataset.now));
  nextPhase = Date.parse(box.dataset.next) || 0;
  for (const name of ["queue_opens", "starts"]) showTime(name, (marked(name)[0] || {}).dateTime);
  showCountdown();
  // The address to return to from the page that "more time" leads to.
  for (const each of marked("more")) each.action += "&to=" + encodeURIComponent(location.pathname + location.search);
  if (state === "busy") {
    // There is no place yet whose status could be requested.
    remember([0, 0]);
    timer = setTimeout(reload, pollAfter * 1000);
  } else schedule(pollAfter);
  showAge();
})();
