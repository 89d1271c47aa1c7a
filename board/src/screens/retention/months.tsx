import { VisuallyHidden } from "@mantine/core";
import type { StoredRange } from "../../api/retention.ts";
import { bytesText } from "../../parts/figures.ts";
import { agoText } from "../../parts/time.tsx";
import { type Day, type DayName, daysOf, levelOf, monthsOf, shortCount, today } from "./calendar.ts";
import classes from "./retention.module.css";

const WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const monthName = new Intl.DateTimeFormat("en", { month: "long", year: "numeric", timeZone: "UTC" });

/** The months of a log, newest first. The shade of a day repeats its number, which stands in it. */
export function Months({ ranges, now }: { ranges: StoredRange[]; now: number }) {
  const days = daysOf(ranges, now);
  const most = Math.max(...[...days.values()].map((each) => each.records / each.length));
  const current = today(now);
  return (
    <div className={classes.months}>
      {monthsOf([...days.keys(), current]).map((month) => (
        <table key={month.name} className={classes.month}>
          <caption>{monthName.format(new Date(`${month.name}-01T00:00:00Z`))}</caption>
          <thead>
            <tr>
              {WEEKDAYS.map((each) => (
                <th key={each} scope="col" abbr={each}>
                  {each.slice(0, 2)}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {month.weeks.map((week) => (
              <tr key={week.find(Boolean)}>
                {week.map((name, index) =>
                  name === null ? (
                    // biome-ignore lint/suspicious/noArrayIndexKey: days of other months are alike
                    <td key={index} />
                  ) : (
                    <Cell
                      key={name}
                      name={name}
                      day={days.get(name)}
                      most={most}
                      isToday={name === current}
                      now={now}
                    />
                  ),
                )}
              </tr>
            ))}
          </tbody>
        </table>
      ))}
    </div>
  );
}

function Cell({
  name,
  day,
  most,
  isToday,
  now,
}: {
  name: DayName;
  day: Day | undefined;
  most: number;
  isToday: boolean;
  now: number;
}) {
  const number = Number(name.slice(8));
  if (!day) {
    return (
      <td className={classes.day} aria-current={isToday ? "date" : undefined}>
        <span className={classes.number}>{number}</span>
      </td>
    );
  }
  const hidden = day.state === "hidden" ? "hidden" : `hidden ${agoText(day.hiddenAfter, now)}`;
  const span = day.begins === day.ends ? name : `${day.begins} to ${day.ends}`;
  const records = `${day.records.toLocaleString("en")} records`;
  return (
    <td
      className={classes.day}
      data-level={levelOf(day.records / day.length, most)}
      data-hidden={day.state === "hidden" || undefined}
      aria-current={isToday ? "date" : undefined}
      title={`${span}: ${records}, ${bytesText(day.bytes)}, ${hidden}`}
    >
      <span className={classes.number}>{number}</span>
      {name === day.begins ? (
        <>
          <span className={classes.count} aria-hidden>
            {shortCount(day.records)}
            {day.length > 1 && "→"}
          </span>
          <VisuallyHidden>
            {day.length > 1 ? `${span}: ` : ""}
            {records}, {hidden}
          </VisuallyHidden>
        </>
      ) : (
        <VisuallyHidden>in the range from {day.begins}</VisuallyHidden>
      )}
    </td>
  );
}
