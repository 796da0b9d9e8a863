using System.Text;
using Trimtab.Server;

Console.OutputEncoding = new UTF8Encoding(false);
return await CommandLine.RunAsync(args, Console.Out, Console.Error).ConfigureAwait(false);
