(() => {
  const main = document.querySelector("main"), gone = document.getElementById("gone");
  const sync = (old, fresh) => {
    if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || (old.id || "") !== (fresh.id || "")) {
      old.replaceWith(fresh);
    } else if (old.nodeType === Node.TEXT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
    } else {
      for (const {name, value} of fresh.attributes)
        if (name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
      for (const name of old.getAttributeNames())
        if (name !== "open" && !fresh.hasAttribute(name)) old.removeAttribute(name);
      children(old, [...fresh.childNodes]);
    }
  };
  const children = (old, fresh) => {
    const known = new Map([...old.children].filter(one => one.id).map(one => [one.id, one]));
    fresh.forEach((child, at) => {
      const here = old.childNodes[at], same = child.id && known.get(child.id);
      if (same && same !== here) old.insertBefore(same, here || null);
      if (same) sync(same, child);
      else if (child.id || (here && here.id)) old.insertBefore(child, here || null);
      else if (here) sync(here, child);
      else old.append(child);
    });
    while (old.childNodes.length > fresh.length) old.lastChild.remove();
  };
  let asking = false, timer = 0;
  const look = async () => {
    if (asking || document.hidden) return;
    asking = true;
    clearTimeout(timer);
    try {
      const said = await fetch(location.pathname, {
        headers: {Accept: "text/html"}, cache: "no-store", signal: AbortSignal.timeout(10000)
      });
      const found = said.ok && new DOMParser().parseFromString(await said.text(), "text/html").querySelector("main");
      if (found) sync(main, document.adoptNode(found));
      gone.hidden = Boolean(found);
    } catch {
      gone.hidden = false;
    }
    asking = false;
    timer = setTimeout(look, 2000);
  };
  document.addEventListener("visibilitychange", look);
  timer = setTimeout(look, 2000);
})();
