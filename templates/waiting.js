// Keeps the waiting page true, and takes the visitor in when it is their turn.
// What it changes is marked data-waitroom="NAME", and what it shows or hides data-waitroom-if="NAME"; a page has
// whichever of them it likes. It is squeezed line by line when it is loaded (pages/templates.py): write no regular
// expressions here, no strings over several lines and no comments behind code.
(() => {
  "use strict";
  const box = document.getElementById("waitroom");
  const { language, states, messages } = JSON.parse(box.textContent);
  const { room, position } = box.dataset;
  const memory = "waitroom_went_" + room;
  const born = Date.now();

  let state = box.dataset.state;
  let start = Number(box.dataset.start) || 0;
  let pollAfter = seconds(box.dataset.pollAfter);
  let toldPlace = Number(position) || Infinity;
  let toldAt = born;
  let heardAt = born;
  let age = 0;
  let askedAt = born;
  let asking = false;
  let going = false;
  let failures = 0;
  let timer;

  const live = document.createElement("p");
  live.setAttribute("role", "status");
  live.style.cssText = "position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)";
  live.setAttribute("aria-live", "polite");
  document.body.append(live);

  function marked(name, kind = "") { return document.querySelectorAll(`[data-waitroom${kind}=${name}]`); }
  function put(name, text) {
    for (const each of marked(name)) if (each.textContent !== text) each.textContent = text;
  }
  function show(name, there) {
    for (const each of marked(name, "-if")) each.hidden = !there;
  }
  function number(value, unit) {
    const style = unit ? { style: "unit", unit, unitDisplay: "long" } : { useGrouping: true };
    return new Intl.NumberFormat(language, style).format(value);
  }
  function seconds(value) { return Math.min(Math.max(Number(value) || 15, 1), 300); }

  // The same as Language.wait in pages/i18n.py.
  function wait(range) {
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

  function updated() {
    // What was true when a held page was made is not known here: it shows the time instead.
    if (state === "held" || state === "busy") return;
    const passed = Math.round(age + Math.max(0, Date.now() - heardAt) / 1000);
    const format = new Intl.RelativeTimeFormat(language, { numeric: "auto" });
    if (passed < 90) put("updated", format.format(passed < 5 ? 0 : -passed, "second"));
    else put("updated", format.format(-Math.round(passed / 60), "minute"));
  }

  function announce(text) {
    live.textContent = text;
    toldAt = Date.now();
  }

  function notice(text) {
    put("notice", text);
    show("notice", text);
  }

  function enter(next) {
    state = next;
    document.documentElement.dataset.state = next;
    put("heading", states[next][0]);
    put("lead", states[next][1]);
    put("title", states[next][0]);
    announce(states[next][0]);
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
      show(name, there);
      if (there) put(name, number(status[name]));
    }
    const text = wait(status.eta_seconds);
    put("eta", text);
    put("message", status.message || "");
    show("message", status.message);
    const place = status.position;
    show("progress", place);
    if (place) {
      progress(place);
      if (state === "waiting" && states.waiting) put("title", number(place) + " · " + states.waiting[0]);
      // Sparingly: at most once a minute, and only when nearer by a tenth or at the very front.
      if ((place <= toldPlace * 0.9 || (place <= 10 && place < toldPlace)) && Date.now() - toldAt >= 60000) {
        toldPlace = place;
        announce(messages.place.replace("{position}", number(place)) + " " + text);
      }
    }
    updated();
  }

  // The page is loaded again at most once in 5 s, and less often if that keeps leading back here.
  function went() {
    try {
      return JSON.parse(sessionStorage.getItem(memory)) || [0, 0];
    } catch (error) {
      return [born, 1];
    }
  }
  function remember(went) {
    try {
      sessionStorage.setItem(memory, JSON.stringify(went));
    } catch (error) {
      // Without storage the age of the page has to do.
    }
  }

  function goOn(called) {
    const [at, times] = went();
    // A visitor who has learned of the turn goes in now: its time runs, and a hidden tab has one timer a minute.
    const guard = times > (called ? 1 : 0) ? Math.min(5000 * 2 ** (times - 1), 60000) - Math.abs(Date.now() - at) : 0;
    const go = () => {
      remember([Date.now(), Math.min(times + 1, 5)]);
      const here = location.href;
      // Replacing an address by itself only scrolls where it has a fragment, so it becomes another one first.
      if (location.hash) history.replaceState(null, "", location.search ? location.pathname : "?waitroom");
      location.replace(here);
      // The shop may take its time to answer, and going again would cut it short.
      going = false;
      schedule(90);
    };
    going = true;
    if (called && guard <= 0) go();
    else timer = setTimeout(go, Math.max(guard, 0));
  }

  function schedule(after) {
    clearTimeout(timer);
    timer = setTimeout(poll, after * 1000);
  }

  function failed(request) {
    failures += 1;
    if (failures === 2) {
      notice(messages.lost);
      announce(messages.lost);
    }
    updated();
    const asked = Math.min(Number(request.getResponseHeader("Retry-After")) || 0, 300);
    const after = Math.max(Math.min(5 * 2 ** (failures - 1), 60), pollAfter, asked);
    schedule(after * (1 + Math.random() / 4));
  }

  function answered(request) {
    let status;
    try {
      status = JSON.parse(request.responseText);
    } catch (error) {
      status = {};
    }
    // A room that is no more has no line either.
    if (request.status === 404) return goOn();
    if (request.status !== 200 || !status || !status.state) return failed(request);
    failures = 0;
    notice("");
    pollAfter = seconds(status.poll_after);
    if (status.state === "unknown" && !navigator.cookieEnabled) {
      notice(messages.cookies);
      return schedule(60);
    }
    if (status.state === "unknown") return goOn();
    if (status.state === "called" || status.state === "admitted") {
      if (states.called) enter("called");
      return goOn(true);
    }
    remember([0, 0]);
    if (status.state !== state) {
      // A page with words of its own can't be brought into another state from here.
      if (!states[state] || !states[status.state]) return goOn();
      enter(status.state);
    }
    // Both times are the server's, so that a visitor's wrong clock does no harm.
    heardAt = Date.now();
    age = Math.max((Date.parse(request.getResponseHeader("Date")) - Date.parse(status.updated_at)) / 1000, 0) || 0;
    update(status);
    schedule(pollAfter);
  }

  function poll() {
    if (asking || going) return;
    clearTimeout(timer);
    asking = true;
    askedAt = Date.now();
    const request = new XMLHttpRequest();
    request.open("GET", "/.waitroom/status?room=" + room);
    request.setRequestHeader("Accept", "application/json");
    request.timeout = 15000;
    request.onloadend = () => {
      asking = false;
      try {
        answered(request);
      } catch (error) {
        // A browser too old for all this gets what the server renders.
        goOn();
      }
    };
    request.send();
  }

  // Timers sleep in hidden tabs and on sleeping phones.
  function back() {
    if (!document.hidden && Math.abs(Date.now() - askedAt) > 2000) poll();
  }
  document.addEventListener("visibilitychange", back);
  addEventListener("online", back);
  setInterval(() => { if (!document.hidden) updated(); }, 5000);

  if (marked("heading").length && marked("lead").length) {
    states[state] = [marked("heading")[0].textContent, marked("lead")[0].textContent];
  }
  // Where to go from the page that a click on "more time" leads to.
  for (const each of marked("more")) each.action += "&to=" + encodeURIComponent(location.pathname + location.search);
  if (state === "busy") {
    // There is no place to ask about yet.
    remember([0, 0]);
    timer = setTimeout(goOn, pollAfter * 1000);
  } else schedule(pollAfter);
  updated();
})();
