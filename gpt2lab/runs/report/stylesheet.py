"""The style of a report's page: light and dark, wide and narrow, on screen and on paper."""

STYLE = """\
:root {
  --paper: #ffffff; --ink: #22272e; --muted: #5f6772; --line: #dfe3e8; --soft: #f5f7f9; --link: #0b5cad;
    --mark: #fff3c4;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #b5528b; --c4: #c08a00; --c5: #4aa3df;
    --c6: #7d6bd1; --c7: #7f7f7f;
  --holds: #0b6b46; --holds-soft: #dff4ea; --part: #6b5500; --part-soft: #faf0cc; --fails: #a12a12;
    --fails-soft: #fce6e0;
  --open: #31567f; --open-soft: #e4eef9; --untested: #555d66; --untested-soft: #eceff2;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14181d; --ink: #e6e9ed; --muted: #9aa4af; --line: #343b44; --soft: #1c2229;
      --link: #7fbcff; --mark: #4a3f12;
    --c0: #4fb0ea; --c1: #ff8a3d; --c2: #35c99a; --c3: #e08bbd; --c4: #e6b84a; --c5: #8fd0ff;
      --c6: #ab9cf5; --c7: #a9a9a9;
    --holds: #7fe0b5; --holds-soft: #123626; --part: #f0d67a; --part-soft: #3a300b; --fails: #ffab97;
      --fails-soft: #43190f;
    --open: #a9cdf7; --open-soft: #16293f; --untested: #b6bec8; --untested-soft: #272e36;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 2.5rem 1.25rem 5rem; max-width: 60rem; background: var(--paper);
    color: var(--ink);
  font: 1.0625rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
h1, h2, h3, h4 { line-height: 1.25; text-wrap: balance; }
h1 { margin: 0 0 .6rem; font-size: 2rem; letter-spacing: -.015em; }
h2 { margin: 3.2rem 0 .8rem; padding-bottom: .35rem; border-bottom: 1px solid var(--line);
  font-size: 1.4rem; }
h3 { margin: 2.2rem 0 .6rem; font-size: 1.12rem; }
h4 { margin: 1.6rem 0 .5rem; font-size: 1rem; }
p { margin: .7rem 0; max-width: 46rem; }
p, h1, h2, h3, h4, dd, figcaption, .verdicts, .facts { overflow-wrap: anywhere; }
a { color: var(--link); text-underline-offset: .15em; }
a:focus-visible, summary:focus-visible { outline: 2px solid var(--link); outline-offset: 3px;
  border-radius: 3px; }
.byline { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; max-width: none; color: var(--muted);
  font-size: .95rem; }
.small { display: block; margin-top: .2rem; color: var(--muted); font-size: .85rem; line-height: 1.45; }
.warning { padding: .7rem 1rem; border-left: 4px solid var(--fails); border-radius: 4px;
  background: var(--fails-soft); }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
code { font-size: .88em; overflow-wrap: anywhere; }
p code, dd code, li code, .small code { padding: .08em .3em; border-radius: 4px; background: var(--soft); }
pre { margin: .8rem 0; padding: .9rem 1.1rem; border: 1px solid var(--line); border-radius: 8px;
  background: var(--soft);
  font-size: .88rem; line-height: 1.5; white-space: pre-wrap; overflow-wrap: anywhere; }
pre.command::before { content: "$ "; color: var(--muted); }
.badge { display: inline-block; padding: .1rem .6rem .13rem .5rem; border-radius: 999px;
  font-size: .84rem; font-weight: 600;
  line-height: 1.5; white-space: nowrap; }
.badge.holds { color: var(--holds); background: var(--holds-soft); }
.badge.part { color: var(--part); background: var(--part-soft); }
.badge.fails { color: var(--fails); background: var(--fails-soft); }
.badge.open { color: var(--open); background: var(--open-soft); }
.badge.untested { color: var(--untested); background: var(--untested-soft); }
table { border-collapse: collapse; }
caption { padding: .2rem 0 .5rem; color: var(--muted); font-size: .88rem; text-align: left; }
th, td { padding: .55rem .8rem .55rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
thead th { color: var(--muted); font-size: .82rem; font-weight: 600; }
.verdicts { width: 100%; margin: 1.2rem 0; }
.verdicts caption { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
.verdicts tbody th { width: 32%; font-weight: 500; }
.verdicts td { font-size: .95rem; }
.verdicts td:nth-child(2) { width: 25%; }
.verdicts td:nth-child(3) { width: 20%; }
.verdicts tbody th { padding-left: 1.7em; }
.verdicts .letter { float: left; margin-left: -1.7em; color: var(--muted); font-weight: 700; }
.verdicts .figure { font-variant-numeric: tabular-nums; font-weight: 600; }
.scroll { margin: 1rem 0; overflow-x: auto; }
.data { font-size: .92rem; }
.data th, .data td { padding: .35rem 1.3rem .35rem 0; white-space: nowrap; }
.data td { white-space: normal; }
.table figcaption { margin: 0 0 .3rem; }
.table .scroll { margin: 0; }
.data .number { font-variant-numeric: tabular-nums; text-align: right; white-space: nowrap; }
.data tbody tr:hover { background: var(--soft); }
.data td:first-child { min-width: 6rem; }
.wide td:first-child { min-width: 9rem; }
.wide th:first-child, .wide td:first-child { position: sticky; left: 0; background: var(--paper); }
.wide tbody tr:hover td:first-child { background: var(--soft); }
.facts { width: 100%; margin: 1rem 0; font-size: .92rem; }
.facts th { width: 15rem; font-weight: 500; overflow-wrap: anywhere; }
.facts mark { padding: .05em .3em; border-radius: 4px; background: var(--mark); color: inherit; }
.facts mark + .small { display: inline; margin-left: .5rem; }
dl.claim { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.2rem; margin: .8rem 0 0;
  font-size: .95rem; }
dl.claim dt { color: var(--muted); }
dl.claim dd { margin: 0; max-width: 42rem; }
figure { margin: 1.2rem 0; }
.drawing { overflow: auto; }
.drawing svg { display: block; max-width: max(100%, 30rem); height: auto; }
figcaption { margin-top: .4rem; max-width: 46rem; color: var(--muted); font-size: .9rem; }
.passage figcaption { margin: 0 0 .3rem; }
.passage pre { max-height: 28rem; overflow-y: auto; }
details { margin: 0; border-top: 1px solid var(--line); }
details details { margin-left: 1.1rem; }
details > summary { padding: .45rem 0; cursor: pointer; }
summary > h2, summary > h3, summary > h4 { display: inline; margin: 0; border: 0; font-size: 1.05rem; }
@media (max-width: 44rem) {
  body { padding: 1.4rem 1rem 3rem; font-size: 1rem; }
  h1 { font-size: 1.55rem; }
  .verdicts thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  .verdicts, .verdicts tbody, .verdicts tr, .verdicts th, .verdicts td { display: block;
    width: auto !important; }
  .verdicts tr { margin: 0 0 1rem; padding: .8rem 1rem; border: 1px solid var(--line);
    border-radius: 10px; }
  .verdicts th, .verdicts td { padding: .3rem 0; border: 0; }
  .verdicts td::before { content: attr(data-label); display: block; color: var(--muted);
    font-size: .78rem; }
  .verdicts tbody th { padding-left: 1.7em; }
  .verdicts td:nth-child(2)::before { display: none; }
  .facts th, .facts td { display: block; width: auto; padding: .3rem 0 0; border: 0; }
  .facts td { padding-bottom: .5rem; border-bottom: 1px solid var(--line); }
  dl.claim { grid-template-columns: 1fr; gap: 0; }
  dl.claim dd { margin-bottom: .5rem; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 10.5pt; }
  h2, h3 { break-after: avoid; }
  figure, tr, pre, dl { break-inside: avoid; }
  .passage pre { max-height: none; }
  .drawing svg { max-width: 100%; }
  details::details-content { content-visibility: visible; display: block; height: auto; }
  .badge { border: 1px solid currentcolor; }
}
"""
