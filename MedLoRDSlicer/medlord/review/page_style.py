"""The frame of the report's page: HTML and CSS with `$name` places for `string.Template`."""

PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="$policy">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root {
  color-scheme: light dark;
  --ground: #f6f7f9; --card: #ffffff; --ink: #1b2330; --soft: #5c6675; --line: #dde2e9; --flag: #b54708;
  --flag-ground: #fff4e5;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #11151b; --card: #1a2029; --ink: #e6eaf0; --soft: #9aa5b4; --line: #2c3542; --flag: #ffb86b;
    --flag-ground: #33240f;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 1280px; margin: 0 auto; padding: 28px 24px 64px; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 16px; }
h2 { font-size: 1.1rem; margin: 0 0 4px; }
h3 { font-size: 1rem; margin: 22px 0 4px; }
small { font-size: .8rem; font-weight: 400; color: var(--soft); }
.meaning { margin: 0 0 12px; color: var(--soft); max-width: 78ch; }
.warnings { background: var(--flag-ground); border-left: 4px solid var(--flag); border-radius: 6px;
  padding: 10px 16px; margin: 16px 0; }
.warnings ul { margin: 0; padding-left: 20px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px;
  margin: 16px 0; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); gap: 12px 20px; margin: 0; }
.facts dt { color: var(--soft); font-size: .8rem; }
.facts dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
.pair { display: flex; flex-wrap: wrap; gap: 12px; align-items: flex-start; }
figure { margin: 0 0 12px; }
img { max-width: 100%; height: auto; background: #fff; border-radius: 6px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 10px; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top;
  white-space: nowrap; }
th { color: var(--soft); font-size: .8rem; font-weight: 600; }
td.text { text-align: left; white-space: pre-line; overflow-wrap: anywhere; min-width: 10ch; }
td.text:last-child { min-width: 30ch; color: var(--soft); font-size: .82rem; }
summary { cursor: pointer; font-weight: 600; margin: 8px 0; }
@media print { body { background: none; } .card { break-inside: avoid; } }
</style>
</head>
<body>
<main>
<h1>$title</h1>
<section class="card"><h2>The study</h2><dl class="facts">$facts</dl></section>
$warnings
$sections
</main>
</body>
</html>
"""
