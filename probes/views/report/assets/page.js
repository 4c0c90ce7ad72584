"use strict";
(() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const narrow = window.matchMedia("(max-width: 60rem)");
  // The colours of the pictures, where the paper is dark.
  const NIGHT = {"#0072b2": "#4fb0e8", "#d55e00": "#f08a3c", "#009e73": "#35c79b", "#6b6b6b": "#a3abb5", "#222222": "#e4e7eb",
    "#ffffff": "#14171b", "#c6dbef": "#123a5c", "#4a98c9": "#2a7ab8", "#08306b": "#d6eafa", "#f7f7f7": "#262c34"};
  // Of others the dark ones become lighter, in the same order.
  function lit(colour) {
    const parts = [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16) / 255);
    const [r, g, b] = parts.map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const share = 0.5 * (1 - (0.2126 * r + 0.7152 * g + 0.0722 * b)) ** 4;
    return "#" + parts.map((c) => Math.round(255 * (c + (1 - c) * share)).toString(16).padStart(2, "0")).join("");
  }
  const say = document.getElementById("say");
  const plots = [...document.querySelectorAll("figure > .plot")];

  function spec(plot, night, printed) {
    let text = plot.nextElementSibling.textContent;
    if (night) text = text.replace(/#[0-9a-f]{6}/gi, (c) => NIGHT[c.toLowerCase()] || lit(c));
    const made = JSON.parse(text);
    for (const t of made.data) if (t.dx) t.x = (t.y || t.z[0]).map((_, i) => t.x0 + i * t.dx);
    const ink = night ? "#c3cad3" : "#3d444d", grid = night ? "#2a3038" : "#e9ebee", paper = night ? "#14171b" : "#ffffff";
    const axis = {
      gridcolor: grid, zeroline: false, linecolor: night ? "#4a525d" : "#b4bac2", showline: true, ticks: "outside", ticklen: 4,
      tickcolor: night ? "#4a525d" : "#b4bac2", automargin: true, tickfont: {size: 11}, hoverformat: ".5~g", exponentformat: "power",
    };
    const layout = made.layout;
    const phone = plot.clientWidth < 420;
    const named = made.data.filter((t) => t.showlegend && t.name);
    const widest = 52 + 6.6 * Math.max(0, ...named.map((t) => Math.min(t.name.length, 60)));
    const lines = Math.ceil(named.length / Math.max(1, Math.floor((plot.clientWidth - 60) / widest)));
    const square = layout.yaxis && layout.yaxis.scaleanchor;  // a map: as high as it is wide
    const usual = (layout.height || 320) * (printed ? 0.75 : 1);
    const height = (square ? Math.min(420, plot.clientWidth - 80) : usual) + (named.length ? 14 + 19 * lines : 0);
    plot.style.height = height + "px";
    for (const name of ["xaxis", "yaxis"]) {
      layout[name] = Object.assign({}, axis, layout[name]);
      layout[name].title = Object.assign({standoff: 8, font: {size: 12}}, layout[name].title);
    }
    for (const trace of made.data) if (trace.colorbar) trace.colorbar = Object.assign({tickfont: {size: 11}}, trace.colorbar);
    made.layout = Object.assign({
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: {family: getComputedStyle(document.body).fontFamily, size: 12, color: ink},
      margin: {l: 8, r: 12, t: 12, b: 8, pad: 0}, showlegend: named.length > 0, hovermode: "closest", height,
      legend: {orientation: "h", x: 0, xanchor: "left", y: -52 / Math.max(120, height - 90 - 19 * lines), yanchor: "top", font: {size: 11.5}, itemwidth: 30},
      hoverlabel: {bgcolor: paper, bordercolor: grid, font: {size: 12, color: night ? "#e4e7eb" : "#1d2127"}}, modebar: {bgcolor: "rgba(0,0,0,0)", color: night ? "#5d6672" : "#b9c0c8", activecolor: night ? "#c3cad3" : "#3d444d"},
      dragmode: phone || narrow.matches ? false : "zoom",
    }, layout, {height});
    return made;
  }
  const config = {displaylogo: false, responsive: true, displayModeBar: "hover", modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"], toImageButtonOptions: {format: "svg"}, plotlyServerURL: "", showSendToCloud: false};

  function draw(plot, night, printed) {
    const made = spec(plot, night, printed);
    if (printed) made.layout.width = plot.clientWidth;  // by itself a figure takes another width only later
    return Plotly.react(plot, made.data, made.layout, config).then(() => plot.classList.add("drawn"));
  }
  async function unpack(text) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }
  async function start() {
    const packed = document.getElementById("plotly");
    if (!packed) return;
    try {
      const code = document.createElement("script");
      code.textContent = await unpack(packed.textContent);
      document.head.append(code);
      for (const plot of plots) {
        await draw(plot, dark.matches);
        await new Promise((go) => setTimeout(go, 0));
        listen(plot);
      }
      dark.addEventListener("change", () => plots.forEach((plot) => draw(plot, dark.matches)));
      window.addEventListener("beforeprint", () => plots.forEach((plot) => draw(plot, false, true)));
      window.addEventListener("afterprint", () => plots.forEach((plot) => draw(plot, dark.matches).then(() => Plotly.Plots.resize(plot))));
      document.documentElement.dataset.drawn = plots.length;
    } catch (error) {
      for (const plot of plots.filter((p) => !p.classList.contains("drawn"))) {
        const words = document.createElement("p");
        words.className = "failed";
        words.textContent = "This browser cannot draw the figure (" + error.message + "). Its numbers are in the table below.";
        plot.replaceChildren(words);
      }
      console.warn(error);
    }
  }

  // With the keyboard: left and right go from point to point, up and down from line to line.
  function listen(plot) {
    let curve = -1, point = -1;
    const lines = () => plot.data.map((t, i) => [t, i]).filter(([t]) => t.hoverinfo !== "skip" && t.type === "scatter" && t.x && t.x.length).map(([, i]) => i);
    plot.addEventListener("keydown", (event) => {
      const step = {ArrowRight: 1, ArrowLeft: -1}[event.key], other = {ArrowDown: 1, ArrowUp: -1}[event.key], known = lines();
      if ((!step && !other) || !known.length) return;
      event.preventDefault();
      if (curve < 0) curve = known[0];
      if (other) curve = known[(known.indexOf(curve) + other + known.length) % known.length];
      const length = plot.data[curve].x.length;
      point = Math.min(Math.max(point + (step || 0), 0), length - 1);
      Plotly.Fx.hover(plot, [{curveNumber: curve, pointNumber: point}]);
      const trace = plot.data[curve], bars = trace.error_y && trace.error_y.array;
      say.textContent = (trace.name ? trace.name + ", " : "") + trace.x[point] + ": " + trace.y[point] + (bars ? " ± " + bars[point] : "");
    });
    plot.addEventListener("blur", () => Plotly.Fx.unhover(plot));
  }

  for (const button of document.querySelectorAll("button.copy")) {
    button.addEventListener("click", async () => {
      const rows = [...button.closest("details").querySelectorAll("tr")];
      const text = rows.map((row) => [...row.children].map((cell) => cell.textContent).join("\t")).join("\n");
      let done = true;
      try { await navigator.clipboard.writeText(text); } catch { done = oldCopy(text); }
      button.textContent = done ? "Copied" : "Not allowed";
      say.textContent = button.textContent;
      setTimeout(() => { button.textContent = "Copy"; }, 1600);
    });
  }
  function oldCopy(text) {  // a page that was opened from a file has no clipboard in some browsers
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }

  const contents = document.querySelector("nav details");
  const fold = () => { contents.open = !narrow.matches; };
  fold();
  narrow.addEventListener("change", fold);
  const links = new Map([...document.querySelectorAll("nav a")].map((a) => [a.hash.slice(1), a]));
  if ("IntersectionObserver" in window) {
    const seen = new IntersectionObserver((entries) => {
      for (const entry of entries) if (entry.isIntersecting) {
        links.forEach((a) => a.classList.remove("here"));
        links.get(entry.target.id)?.classList.add("here");
      }
    }, {rootMargin: "-15% 0px -75% 0px"});
    links.forEach((_, id) => { const part = document.getElementById(id); if (part) seen.observe(part); });
  }
  // Registered before the figures' own: these are drawn for the width that the paper has.
  window.addEventListener("beforeprint", () => {
    document.documentElement.classList.add("printed");
    document.querySelectorAll("details").forEach((d) => { d.dataset.was = d.open; d.open = true; });
  });
  window.addEventListener("afterprint", () => {
    document.documentElement.classList.remove("printed");
    document.querySelectorAll("details").forEach((d) => { d.open = d.dataset.was === "true"; });
  });
  start();
})();
