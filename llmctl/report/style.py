"""The look of the pages: the system's fonts, one column, light and dark by the reader's own setting."""

SORTS = 6
"""How many sorts of things a page can filter by."""

_FILTER = ",".join(f".filter>.c{i}:checked~.kept>:not(.s{i})" for i in range(1, SORTS + 1))
STYLE = (
    """
:root{--ink:#1d2125;--dim:#5c6670;--paper:#fff;--card:#f6f7f9;--line:#dfe3e8;--good:#1a7f4b;--bad:#c0392b;--bar:#0072b2}
@media (prefers-color-scheme:dark){:root{--ink:#e6e8ea;--dim:#9aa4ae;--paper:#14171a;--card:#1d2125;--line:#31373d;
--good:#4cc38a;--bad:#ff7b6b;--bar:#56b4e9}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:62rem;margin:0 auto;padding:1.2rem 1rem 4rem}
h1{font-size:1.6rem;line-height:1.2;margin:.4rem 0 .2rem}
h2{font-size:1.15rem;margin:2.2rem 0 .6rem;padding-bottom:.25rem;border-bottom:1px solid var(--line)}
h3{font-size:1rem;margin:1.2rem 0 .5rem}
.sub,small,figcaption,caption{color:var(--dim)}
.sub{margin:0}
small{font-size:.8em;white-space:nowrap}
.wide{overflow-x:auto;margin:.6rem 0;background:var(--paper)}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
caption{text-align:left;font-size:.85rem;padding-bottom:.3rem}
th,td{text-align:left;min-width:4.5rem;vertical-align:top;padding:.4rem .7rem;border-bottom:1px solid var(--line)}
thead th{font-size:.85rem;color:var(--dim);font-weight:600;white-space:nowrap}
tbody th{font-weight:500;position:sticky;left:0;background:var(--paper)}
.line{white-space:nowrap}
.meter{display:block;height:4px;min-width:5rem;max-width:9rem;margin-top:.25rem;border-radius:2px;background:var(--line)}
.meter i{display:block;height:4px;border-radius:2px;background:var(--bar)}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,24rem),1fr));gap:.8rem}
figure{margin:0;padding:.7rem .8rem;background:var(--card);border-radius:8px}
figcaption{font-size:.85rem;font-weight:600;margin-bottom:.3rem}
svg,img{display:block;width:100%;height:auto}
details{margin:.3rem 0;background:var(--card);border-radius:8px}
details details{margin:.3rem .6rem;background:var(--paper)}
details[open]{padding-bottom:.4rem}
summary{cursor:pointer;padding:.45rem .7rem;overflow-wrap:anywhere}
dl{margin:0;padding:0 .8rem .3rem}
dt{margin-top:.5rem;font-size:.85rem;color:var(--dim)}
dd{margin:0}
pre{margin:.15rem 0;white-space:pre-wrap;overflow-wrap:anywhere;font:.88rem/1.45 ui-monospace,Menlo,Consolas,monospace}
details>p,details>pre{margin:.2rem .8rem}
details>.wide{margin:0 .6rem .6rem}
.marks{letter-spacing:.1em;font-weight:700}
.right{color:var(--good)}
.wrong{color:var(--bad)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:.8rem;margin:1rem 0}
.tiles div{padding:.7rem .9rem;background:var(--card);border-radius:8px}
.tiles b{display:block;font-size:1.35rem;line-height:1.3}
.tiles span{color:var(--dim);font-size:.85rem}
.sides{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr))}
.filter{padding:0 .6rem}
.filter>input{position:absolute;opacity:0}
.filter>label{display:inline-block;margin:.2rem .2rem .4rem 0;padding:.1rem .6rem;border:1px solid var(--line);
border-radius:1rem;font-size:.85rem;color:var(--dim);cursor:pointer}
.filter>input:checked+label{color:var(--ink);border-color:var(--ink)}
.filter>input:focus-visible+label{outline:2px solid var(--bar)}
@media print{details{break-inside:avoid}}
"""
    + _FILTER
    + "{display:none}\n"
)
