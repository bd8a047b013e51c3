(function () {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const asked = location.hash === "#dark" ? "dark" : location.hash === "#light" ? "light" : null;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let theme = asked || (dark.matches ? "dark" : "light");
  function colours() {
    const style = getComputedStyle(root);
    const of = (name) => style.getPropertyValue(name).trim();
    return { text: of("--text"), card: of("--card"), line: of("--line") };
  }
  function layout(own) {
    const c = colours();
    const axis = { gridcolor: c.line, zerolinecolor: c.line, linecolor: c.line };
    const made = Object.assign({}, own, {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, sans-serif", size: 12, color: c.text }, autosize: true,
      hoverlabel: { bgcolor: c.card, bordercolor: c.line, font: { color: c.text } },
      dragmode: false,
    });
    (made.annotations || []).forEach(function (note) { note.bgcolor = c.card; });
    Object.keys(made).forEach(function (key) {
      if (/^[xy]axis/.test(key)) { made[key] = Object.assign({}, axis, made[key]); }
    });
    return made;
  }
  const specs = Array.from(document.querySelectorAll("script[data-plot]")).map(function (element) {
    const place = document.getElementById(element.dataset.plot);
    const spec = JSON.parse(element.textContent);
    place.style.height = spec.layout.height + "px";
    place.style.minWidth = spec.least_width + "px";
    return [place, spec];
  });
  const options = { displaylogo: false, responsive: true, displayModeBar: false };
  function draw() {
    root.dataset.theme = theme;
    button.setAttribute("aria-pressed", theme === "dark");
    specs.forEach(function ([place, spec]) {
      Plotly.react(place, spec.data, layout(spec.layout), options);
    });
    root.dataset.drawn = specs.length;
  }
  button.addEventListener("click", function () {
    theme = theme === "dark" ? "light" : "dark";
    draw();
  });
  dark.addEventListener("change", function (event) {
    theme = event.matches ? "dark" : "light";
    draw();
  });
  const message = document.getElementById("copied");
  function copied(text) {
    if (navigator.clipboard && window.isSecureContext) {
      return navigator.clipboard.writeText(text);
    }
    const area = document.createElement("textarea");  // a page that came over plain HTTP
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done ? Promise.resolve() : Promise.reject(new Error("refused"));
  }
  document.querySelectorAll("button[data-copy]").forEach(function (element) {
    const words = element.textContent;
    element.addEventListener("click", function () {
      const text = document.getElementById(element.dataset.copy).textContent;
      copied(text).then(function () { return "Copied"; }, function () { return "Not copied"; })
        .then(function (answer) {
          element.focus();
          element.textContent = message.textContent = answer;
          setTimeout(function () { element.textContent = words; message.textContent = ""; }, 2000);
        });
    });
  });
  draw();
})();
