"""The pages of reports: HTML and CSS with `$name` places for `string.Template`."""

_HEAD = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$page_title</title>
<style>
:root {
  color-scheme: light dark;
  --ground: #f6f7f9; --card: #ffffff; --ink: #1b2330; --soft: #5c6675; --line: #dde2e9; --accent: #0b6bcb;
  --flag: #b54708; --flag-ground: #fff4e5; --good: #147a44; --bad: #c0261c;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #11151b; --card: #1a2029; --ink: #e6eaf0; --soft: #9aa5b4; --line: #2c3542; --accent: #6cb2ff;
    --flag: #ffb86b; --flag-ground: #33240f; --good: #5fce93; --bad: #ff8178;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 1280px; margin: 0 auto; padding: 28px 24px 64px; }
header { display: flex; flex-wrap: wrap; align-items: center; gap: 8px 14px; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0; }
h2 { font-size: 1.1rem; margin: 0 0 12px; }
h3 { font-size: 1rem; margin: 22px 0 8px; }
h3 small, figcaption small { font-weight: 400; color: var(--soft); font-size: .8rem; }
small { font-size: .82rem; color: var(--soft); }
.badge {
  background: var(--flag); color: var(--ground); font-weight: 700; letter-spacing: .08em; font-size: .78rem;
  padding: 3px 10px; border-radius: 999px;
}
.notice, .warnings {
  background: var(--flag-ground); border-left: 4px solid var(--flag); border-radius: 6px;
  padding: 10px 16px; margin: 16px 0;
}
.warnings h2 { margin-bottom: 4px; }
.warnings ul { margin: 0; padding-left: 20px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px;
  margin: 16px 0; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(180px, 1fr)); gap: 12px 20px;
  margin: 0; }
.facts dt { color: var(--soft); font-size: .8rem; }
.facts dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 16px; padding: 0; margin: 0 0 4px;
  font-size: .88rem; }
.swatch { display: inline-block; width: .8em; height: .8em; border-radius: 3px; margin-right: .5em;
  border: 1px solid #0004; }
.dash { display: inline-block; width: 1.7em; border-top: 2px dashed currentColor; margin-right: .5em;
  vertical-align: middle; }
.pictures { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 10px; }
@media (max-width: 900px) { .pictures { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
figure { margin: 0; }
.stack { position: relative; background: #000; border-radius: 6px; overflow: hidden; }
.stack img { display: block; width: 100%; }
.stack .overlay { position: absolute; inset: 0; }
body:has(#contours:not(:checked)) .overlay { display: none; }
figcaption { font-size: .85rem; padding: 4px 2px; }
label { font-size: .9rem; cursor: pointer; user-select: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 12px; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top;
  white-space: nowrap; }
th:first-child { text-align: left; white-space: normal; }
thead th { color: var(--soft); font-size: .82rem; font-weight: 600; }
tbody th { font-weight: 500; }
.notes { margin: 10px 0 0; padding-left: 22px; font-size: .85rem; color: var(--soft); }
meter { width: 70px; height: 10px; margin-left: 10px; vertical-align: middle; }
.meanings { display: grid; grid-template-columns: max-content 1fr; gap: 4px 16px; margin: 16px 0 0;
  font-size: .9rem; }
.meanings dt { font-weight: 600; }
.meanings dd { margin: 0; color: var(--soft); }
.narrow { max-width: 380px; }
pre { overflow: auto; max-height: 420px; font-size: .8rem; background: var(--ground); padding: 12px;
  border-radius: 6px; }
summary { cursor: pointer; font-weight: 600; }
.verdict { border-left-width: 8px; }
.verdict.green { border-left-color: var(--good); }
.verdict.amber { border-left-color: var(--flag); }
.verdict.red { border-left-color: var(--bad); }
.findings { list-style: none; margin: 0; padding: 0; }
.findings li { padding: 3px 0; }
.level { display: inline-block; min-width: 4.2em; margin-right: .8em; padding: 0 .5em; border-radius: 4px;
  text-align: center; font-size: .8rem; font-weight: 700; color: var(--ground); }
.green .level { background: var(--good); }
.amber .level { background: var(--flag); }
.red .level { background: var(--bad); }
.meaning { font-size: .88rem; color: var(--soft); max-width: 80ch; }
.plot { max-width: 100%; border-radius: 6px; }
@media print { body { background: none; } .card { break-inside: avoid; } }
</style>
</head>
"""

PAGE = (
    _HEAD
    + """\
<body>
<main>
<header><h1>$title</h1><span class="badge">$kind</span></header>
<p class="notice">$notice</p>
$verdict
$warnings
<section class="card"><h2>Run</h2><dl class="facts">$facts</dl></section>
<section class="card">
<h2>Input and result</h2>
<ul class="legend">$legend</ul>
<label><input type="checkbox" id="contours" checked> Show contours</label>
$pictures
</section>
<section class="card">
<h2>Does it hold what was drawn?</h2>
$table
<dl class="meanings">$meanings</dl>
</section>
$trust
$provenance
</main>
</body>
</html>
"""
)
"""The report of one volume."""

PLAIN_PAGE = (
    _HEAD
    + """\
<body>
<main>
<header><h1>$title</h1></header>
<p class="notice">$notice</p>
$content
</main>
</body>
</html>
"""
)
"""A page of sections."""
