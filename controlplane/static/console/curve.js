// The cost-quality chart of a backtest, drawn by Chart.js. Without scripts, the table below has the same
// data.
function drawCurve() {
  const canvas = document.getElementById("curve");
  const text = document.getElementById("curve-data");
  if (!canvas || !text || typeof Chart === "undefined" || Chart.getChart(canvas)) return;
  const data = JSON.parse(text.textContent);
  const style = getComputedStyle(document.documentElement);
  const colour = (name, otherwise) => style.getPropertyValue(name).trim() || otherwise;
  const [ink, line, accent] = [colour("--pm-text", "#4b5563"), colour("--pm-line", "#d1d5db"), colour("--pm-accent", "#2563eb")];
  const most = Math.max(...["policies", "models", "oracle"].flatMap((name) => data[name].map((point) => point.x)), 0);
  const points = (label, rows, shape, fill) => ({ label, data: rows, pointStyle: shape, backgroundColor: fill, borderColor: fill, radius: 6, hoverRadius: 8 });
  new Chart(canvas, {
    type: "scatter",
    data: {
      datasets: [
        points(data.policies.length === 1 ? "the version" : "versions", data.policies, "circle", accent),
        points("one model for everything", data.models, "rect", ink),
        points("oracle", data.oracle, "star", "#b45309"),
        { label: "random mix of the models", data: data.frontier, pointStyle: "line", showLine: true, borderDash: [6, 4], borderColor: ink, pointRadius: 0, pointHitRadius: 0 },
        { label: "quality bar", data: [{ x: 0, y: data.bar }, { x: most, y: data.bar }], pointStyle: "line", showLine: true, borderColor: "#b91c1c", borderWidth: 1, pointRadius: 0, pointHitRadius: 0 },
      ],
    },
    options: {
      animation: false,
      maintainAspectRatio: false,
      scales: {
        x: { title: { display: true, text: "US dollars a task (mean)", color: ink }, ticks: { color: ink }, grid: { color: line } },
        y: { title: { display: true, text: "tasks done well (%)", color: ink }, ticks: { color: ink }, grid: { color: line } },
      },
      plugins: {
        legend: { position: "bottom", labels: { color: ink, usePointStyle: true, boxWidth: 8, boxHeight: 8 } },
        tooltip: { callbacks: { label: (item) => `${item.raw.name}: ${item.raw.y.toFixed(2)} %, $${item.raw.x.toFixed(6)} a task` } },
      },
    },
  });
}
addEventListener("DOMContentLoaded", drawCurve);
addEventListener("pm:shown", drawCurve); // a form's response replaced the page
addEventListener("htmx:afterSwap", drawCurve); // a backtest next to the editor
