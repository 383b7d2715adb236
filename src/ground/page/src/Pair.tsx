// Two pictures side by side that are moved, zoomed and brightened together, or shown in turns in one place. The files stay
// as they are.
import { useEffect, useRef, useState } from "preact/hooks";

export interface Picture {
  title: string;
  source: string | null;
  missing: string;
  caption: string;
  /** Shows another one. */
  more: (() => void) | undefined;
}

export function Pair({ left, right }: { left: Picture; right: Picture }) {
  const [view, setView] = useState({ x: 0, y: 0, zoom: 1 });
  const [brightness, setBrightness] = useState(100);
  const [blink, setBlink] = useState(false);
  const [second, setSecond] = useState(false);
  const drag = useRef<{ x: number; y: number; view: typeof view } | null>(null);
  const mayBlink = left.source != null && right.source != null;
  useEffect(() => {
    if (!blink || !mayBlink) return;
    const timer = setInterval(() => setSecond((s) => !s), 600);
    return () => {
      clearInterval(timer);
      setSecond(false);
    };
  }, [blink, mayBlink]);
  useEffect(() => {
    const listen = (event: KeyboardEvent) => {
      const target = event.target as HTMLElement;
      if (event.key === "b" && !event.ctrlKey && !event.metaKey && !document.querySelector("dialog[open]") && !target.matches("input:not([type=checkbox]):not([type=range]), textarea, select")) setBlink((b) => !b);
    };
    addEventListener("keydown", listen);
    return () => removeEventListener("keydown", listen);
  }, []);
  const style = {
    transform: `translate(${(view.x * 100).toFixed(2)}%, ${(view.y * 100).toFixed(2)}%) scale(${view.zoom})`,
    filter: brightness === 100 ? "none" : `brightness(${brightness}%)`,
  };
  const zoom = (to: number) => {
    const next = Math.min(8, Math.max(1, to));
    setView((v) => (next === 1 ? { x: 0, y: 0, zoom: 1 } : { x: (v.x * next) / v.zoom, y: (v.y * next) / v.zoom, zoom: next }));
  };
  const frame = (picture: Picture) => (
    <figure>
      <figcaption>
        <strong>{picture.title}</strong> <span class="quiet">{picture.caption}</span>
        {picture.more && (
          <button class="plain" onClick={picture.more}>
            next picture
          </button>
        )}
      </figcaption>
      <div
        class="window"
        onWheel={(event) => {
          if (!picture.source) return;
          event.preventDefault();
          zoom(view.zoom * (event.deltaY < 0 ? 1.25 : 0.8));
        }}
        onPointerDown={(event) => {
          if (view.zoom === 1) return;
          drag.current = { x: event.clientX, y: event.clientY, view };
          event.currentTarget.setPointerCapture(event.pointerId);
        }}
        onPointerMove={(event) => {
          const from = drag.current;
          if (!from) return;
          const { clientWidth, clientHeight } = event.currentTarget;
          setView({ ...from.view, x: from.view.x + (event.clientX - from.x) / clientWidth, y: from.view.y + (event.clientY - from.y) / clientHeight });
        }}
        onPointerUp={() => {
          drag.current = null;
        }}
      >
        {picture.source ? <img src={picture.source} alt={picture.title} style={style} draggable={false} /> : <p class="quiet">{picture.missing}</p>}
      </div>
    </figure>
  );
  return (
    <div class="pair">
      <div class={blink && mayBlink ? "pictures one" : "pictures"}>{blink && mayBlink ? frame(second ? right : left) : [frame(left), frame(right)]}</div>
      <div class="row tools">
        <button aria-pressed={blink} disabled={!mayBlink} onClick={() => setBlink(!blink)}>
          Blink <kbd>B</kbd>
        </button>
        <label>
          Zoom
          <input type="range" min="1" max="8" step="0.1" value={view.zoom} onInput={(event) => zoom(Number(event.currentTarget.value))} />
        </label>
        <label>
          Brightness
          <input type="range" min="40" max="250" step="5" value={brightness} onInput={(event) => setBrightness(Number(event.currentTarget.value))} />
        </label>
      </div>
    </div>
  );
}
