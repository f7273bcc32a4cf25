//! How the page looks, in light and in dark, on a wide screen and on a phone.

pub const CSS: &str = "\
:root { color-scheme: light dark;
  --ground: #ffffff; --raised: #f6f7f9; --text: #1b1f24; --soft: #5b6570; --rule: #dfe3e8;
  --one: #2563c4; --two: #c2500a; --mark: #0b7a4b; --warn: #fff4dc; --warn-rule: #d99a00;
  --voice-0: #2563c4; --voice-1: #c2500a; --voice-2: #0b7a4b; --voice-3: #8a3fa8; }
@media (prefers-color-scheme: dark) { :root {
  --ground: #14171b; --raised: #1d2127; --text: #e6e9ed; --soft: #9aa5b1; --rule: #343b44;
  --one: #78a9ff; --two: #ff9e5e; --mark: #4fd08f; --warn: #2f2710; --warn-rule: #b58a1b;
  --voice-0: #78a9ff; --voice-1: #ff9e5e; --voice-2: #4fd08f; --voice-3: #d191ea; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 24px 20px 40px; background: var(--ground); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif; }
h1 { margin: 0 0 12px; font-size: 30px; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 40px 0 12px; padding-top: 14px; border-top: 1px solid var(--rule); font-size: 20px; }
h4 { margin: 0; font-size: 15px; overflow-wrap: anywhere; }
p { margin: 0 0 12px; } .small { color: var(--soft); font-size: 14px; }
header p.small:first-child { margin: 0; }
dl.headline { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 10px; margin: 0 0 12px; }
dl.headline div { display: flex; flex-direction: column; justify-content: space-between; padding: 10px 14px;
  background: var(--raised); border-radius: 8px; }
dt { color: var(--soft); font-size: 13px; line-height: 1.3; } dd { margin: 4px 0 0; font-size: 22px; }
.warnings { margin-top: 24px; padding: 4px 18px 10px; background: var(--warn); border-left: 4px solid var(--warn-rule);
  border-radius: 4px; }
.warnings h2 { margin: 8px 0; padding: 0; border: 0; } .warnings ul { margin: 0; padding-left: 18px; }
.warnings li { margin: 0 0 6px; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 14px 7px 0; border-bottom: 1px solid var(--rule); text-align: left; vertical-align: top; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
td { white-space: nowrap; } td.long { white-space: normal; overflow-wrap: anywhere; min-width: 190px; }
th:last-child, td:last-child { padding-right: 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(340px, 100%), 1fr)); gap: 14px; }
.charts + .wide, .wide + p { margin-top: 14px; }
figure.chart { margin: 0; padding: 12px 12px 6px; background: var(--raised); border-radius: 8px; }
figcaption { display: flex; flex-wrap: wrap; gap: 2px 14px; font-size: 14px; }
.title { width: 100%; font-weight: 600; }
.key::before { content: ''; display: inline-block; width: 16px; height: 3px; margin-right: 6px; vertical-align: middle; }
.key.one::before { background: var(--one); } .key.two::before { background: var(--two); }
svg { display: block; width: 100%; height: auto; }
.grid { stroke: var(--rule); } .stroke { stroke: var(--soft); }
.tick, .label { fill: var(--soft); font-size: 12px; } .marked { fill: var(--mark); font-size: 12px; font-weight: 600; paint-order: stroke; stroke: var(--raised); stroke-width: 4px; }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.line.one { stroke: var(--one); } .line.two { stroke: var(--two); }
.dot.one { fill: var(--one); } .dot.two { fill: var(--two); }
.mark { fill: none; stroke: var(--mark); stroke-width: 2; }
.scores { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(340px, 100%), 1fr)); gap: 14px; align-items: start; }
.score { padding: 12px; background: var(--raised); border-radius: 8px; min-width: 0; } .score p { margin: 4px 0 8px; }
.roll { height: 110px; background: var(--ground); border-radius: 4px; }
.voice-0 { fill: var(--voice-0); } .voice-1 { fill: var(--voice-1); }
.voice-2 { fill: var(--voice-2); } .voice-3 { fill: var(--voice-3); }
.links a { display: inline-block; padding: 5px 12px; margin-right: 6px; border: 1px solid var(--one); border-radius: 6px;
  color: var(--one); font-size: 14px; text-decoration: none; }
.links a:hover, .links a:focus { background: var(--one); color: var(--ground); }
.none { margin-right: 10px; color: var(--soft); font-size: 14px; }
summary { cursor: pointer; color: var(--soft); font-size: 14px; padding: 4px 0; }
pre { overflow-x: auto; margin: 8px 0; padding: 12px; background: var(--raised); border-radius: 6px; font-size: 13px;
  line-height: 1.45; max-height: 480px; }
.score pre { background: var(--ground); max-height: 260px; }
code { font-size: 0.92em; overflow-wrap: anywhere; }
footer { margin-top: 40px; }
@media (max-width: 600px) { body { padding: 16px 14px 32px; } h1 { font-size: 24px; } dd { font-size: 19px; }
  thead { display: none; } table, tbody, tr { display: block; }
  tr { padding: 6px 0; border-bottom: 1px solid var(--rule); } td:empty { display: none; }
  td, td.long { display: inline-block; min-width: 0; padding: 1px 14px 1px 0; border: 0; } td.long { display: block; }
  td::before { content: attr(data-label) ' '; color: var(--soft); } }
@media print { body { max-width: none; } figure.chart, .score { break-inside: avoid; } }
";
