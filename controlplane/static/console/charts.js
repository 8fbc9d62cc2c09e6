/* Draws a page's charts with Chart.js (shipped with the theme): values on hover, a legend, the threshold as a dashed
   line. The data is the JSON next to each canvas. */
"use strict";

(() => {
  const WRITE = {
    share: (value) => `${(value * 100).toFixed(1)} %`,
    percent: (value) => `${Math.round(value)} %`,
    nusd: (value) => `$${Number((value / 1e9).toPrecision(3))}`,
  };
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const COLORS = { baseline: "--pm-neutral", candidate: "--pm-accent", safe: "--pm-good", harm: "--pm-bad" };

  function draw(canvas) {
    const script = document.getElementById(canvas.dataset.chart);
    if (!script) return;
    Chart.getChart(canvas)?.destroy();
    const figures = JSON.parse(script.textContent);
    const write = WRITE[figures.unit];
    const times = figures.lines.flatMap((line) => line.points.map(([at]) => at * 1000));
    const [first, last] = [Math.min(...times), Math.max(...times)];
    const form = last - first > 86_400_000 ? { day: "numeric", month: "short", hour: "2-digit" } : { hour: "2-digit", minute: "2-digit", ...(last - first < 300_000 ? { second: "2-digit" } : {}) };
    // A single moment needs some width around it, or the axis spans years.
    const [from, to] = first < last ? [first, last] : [first - 60_000, last + 60_000];
    const clock = (at) => new Date(at).toLocaleString(undefined, form);
    // Ticks that are closer than a label's precision would repeat it.
    const once = (label) => (value, at, ticks) => (at && label(ticks[at - 1].value) === label(value) ? "" : label(value));
    const datasets = figures.lines.map((line) => ({
      label: line.name,
      data: line.points.map(([at, value]) => ({ x: at * 1000, y: value })),
      borderColor: color(COLORS[line.style] || "--pm-accent"),
      backgroundColor: color(COLORS[line.style] || "--pm-accent"),
      borderWidth: 2,
      pointRadius: line.points.length > 1 ? 1.5 : 4,
      pointHoverRadius: 5,
      stepped: figures.unit === "percent" ? "before" : false,
    }));
    if (figures.threshold !== null) {
      datasets.push({
        label: figures.thresholdName,
        data: [{ x: from, y: figures.threshold }, { x: to, y: figures.threshold }],
        borderColor: color("--pm-warn"),
        backgroundColor: color("--pm-warn"),
        borderDash: [5, 4],
        borderWidth: 1.3,
        pointRadius: 0,
      });
    }
    const ink = color("--pm-text");
    const grid = { color: color("--pm-line") };
    new Chart(canvas, {
      type: "line",
      data: { datasets },
      options: {
        animation: false,
        maintainAspectRatio: false,
        interaction: { mode: "nearest", axis: "x", intersect: false },
        scales: {
          x: { type: "linear", min: from, max: to, grid, ticks: { color: ink, maxTicksLimit: canvas.clientWidth < 420 ? 3 : 5, maxRotation: 0, callback: once(clock) } },
          y: { grid, ticks: { color: ink, maxTicksLimit: 6, callback: once(write) } },
        },
        plugins: {
          legend: { labels: { color: ink, boxWidth: 12, boxHeight: 3 } },
          tooltip: {
            callbacks: { title: ([item]) => clock(item.parsed.x), label: (item) => `${item.dataset.label}: ${write(item.parsed.y)}` },
          },
        },
      },
    });
  }

  const drawAll = (root) => {
    if (typeof Chart === "undefined") return;
    // The charts of canvases that were swapped out: nobody else releases them.
    for (const chart of Object.values(Chart.instances)) if (!chart.canvas?.isConnected) chart.destroy();
    root.querySelectorAll("canvas[data-chart]").forEach(draw);
  };
  addEventListener("DOMContentLoaded", () => {
    drawAll(document);
    new MutationObserver(() => drawAll(document)).observe(document.documentElement, { attributeFilter: ["class"] });
  });
  document.addEventListener("pm:swapped", (event) => drawAll(event.target));
})();
